/**
 * The name of a keeper: only one keeper at a time has it. If no directory can be used, the keeper starts without a name, says so, and tries
 * again every 10 s.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import {
  ControlSocket, filesOf, HandoverError, hiddenHolder, isLeaving, PlaceProblem, takeName, withoutStop, type ControlSide
} from '@handover/core/internal'
import { ask, NoListener, NoWay } from '../control/ask.js'
import { Failure, notStarted } from '../failure.js'

const statusMs = 3_000
/** How long a keeper may take to restore the removed path of its socket. */
const hiddenMs = 6_000
const hiddenLookMs = 100
const againMs = 10_000
/** How long another process may hold the lock of the directory at the start. */
const lockedMs = 2_000

/**
 * Undefined if no directory can be used: then `late` is called when one can be used at last. `given`: the user chose the name. Throws a
 * Failure if an app of this name runs already.
 */
export async function takeKeeperName(
  name: string, given: boolean, side: ControlSide, late: (control: ControlSocket) => void
): Promise<ControlSocket | undefined> {
  try {
    return await take(name, side, lockedMs)
  } catch (error) {
    if (error instanceof Failure) throw error
    // A relative HANDOVER_DIR stays wrong.
    if (error instanceof HandoverError && given) throw notStarted(error.what, 'Set HANDOVER_DIR to a directory of this user, or choose another --name')
    const what = error instanceof HandoverError ? error.what : withoutStop((error as Error).message)
    const todo = error instanceof PlaceProblem ? ` ${error.todo}` : ''
    const lacks = 'The commands handover reload, status and stop do not find this app, and neither would a second keeper; SIGHUP reloads it.'
    side.warn(`${what}. ${lacks}${todo}`)
    tryAgain(name, side, late)
    return undefined
  }
}

function tryAgain(name: string, side: ControlSide, late: (control: ControlSocket) => void): void {
  setTimeout(() => {
    take(name, side).then((control) => {
      side.note?.(`the commands find this app from now on, by ${control.file}`)
      late(control)
    }, () => { tryAgain(name, side, late) })
  }, againMs).unref()
}

async function take(name: string, side: ControlSide, lockMs?: number): Promise<ControlSocket> {
  await refuseSecond(name)
  const found = takeName(name, lockMs)
  if ('takenBy' in found) throw notStarted(`another process (${found.takenBy}) has just taken the name ${name}`, 'Choose another one with --name')
  if (found.insteadOf !== undefined) side.note?.(`${found.insteadOf}: the control socket of ${name} is ${found.file} instead`)
  const server = new ControlSocket(found.file, found.listening, side)
  server.listen()
  return server
}

/** Throws a Failure if an app of this name runs, even if the path of its socket was removed. */
async function refuseSecond(name: string): Promise<void> {
  for (let waited = 0; ; waited += hiddenLookMs) {
    // In this order: it may restore its path in between.
    const hidden = hiddenHolder(name)
    await refuseFound(name)
    if (hidden === undefined) return
    if (waited >= hiddenMs) {
      const why = 'its control socket was removed, and it does not make it again'
      throw notStarted(`process ${hidden} has the name ${name} and does not answer: ${why}`, 'End that process, or choose another --name')
    }
    await sleep(hiddenLookMs)
  }
}

async function refuseFound(name: string): Promise<void> {
  for (const file of filesOf(name)) {
    try {
      for await (const answer of ask(file, { type: 'request', verb: 'status' }, () => statusMs)) {
        const { keeper, processes = [] } = answer.type === 'status' ? answer.app : {}
        const pid = keeper?.pid ?? processes[0]?.pid
        const isLast = processes.length > 0 && processes.every(({ state }) => isLeaving(state))
        const what = `an app with the name ${name} ${isLast ? 'is just stopping' : 'runs already'}${pid === undefined ? '' : ` (process ${pid})`}`
        const instead = isLast ? `Start this one when that has ended (handover stop ${name} waits for it)` : `Reload that one (handover reload ${name})`
        throw notStarted(what, `${instead}, or choose another --name`)
      }
    } catch (error) {
      // It can have no name, and can serve.
      if (error instanceof NoWay) throw new Error(error.json.what, { cause: error })
      if (!(error instanceof NoListener)) throw error
    }
  }
}
