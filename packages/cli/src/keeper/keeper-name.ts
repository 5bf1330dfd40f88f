/**
 * The name of a keeper: one keeper at a time has it. A directory that cannot be used is no reason not to start: the keeper goes without,
 * says so, and tries again now and then.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { ControlSocket, filesOf, HandoverError, hiddenHolder, PlaceProblem, takeName, withoutStop, type ControlSide } from '@handover/core/internal'
import { ask, NobodyListens } from '../control/ask.js'
import { Failure, notStarted } from '../failure.js'

const statusMs = 3_000
/** How long a keeper whose path was removed may take to make it again. */
const hiddenMs = 6_000
const hiddenLookMs = 100
const againMs = 10_000

/**
 * Undefined where no directory can be used: then `late` is called when one could be at last. `given`: the name was asked for, and not made
 * of the package's. Throws a Failure where an app of this name runs already.
 */
export async function takeKeeperName(name: string, given: boolean, side: ControlSide, late: (control: ControlSocket) => void): Promise<ControlSocket | undefined> {
  try {
    return await take(name, side)
  } catch (error) {
    if (error instanceof Failure) throw error
    // A relative HANDOVER_DIR was set wrongly: it will not be better later.
    if (error instanceof HandoverError && given) throw notStarted(error.what, 'Set HANDOVER_DIR to a directory of this user, or choose another --name')
    const what = error instanceof HandoverError ? error.what : withoutStop((error as Error).message)
    const todo = error instanceof PlaceProblem ? ` ${error.todo}` : ''
    side.warn(`${what}. The commands handover reload, status and stop do not find this app, and neither would a second keeper; SIGHUP reloads it.${todo}`)
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

async function take(name: string, side: ControlSide): Promise<ControlSocket> {
  await refuseSecond(name)
  const found = takeName(name)
  if ('takenBy' in found) throw notStarted(`another process (${found.takenBy}) has just taken the name ${name}`, 'Choose another one with --name')
  if (found.insteadOf !== undefined) side.note?.(`${found.insteadOf}: the control socket of ${name} is ${found.file} instead`)
  const server = new ControlSocket(found.file, found.listening, side)
  server.listen()
  return server
}

/** Throws a Failure where an app of this name runs, also where the path of its socket was removed. */
async function refuseSecond(name: string): Promise<void> {
  for (let waited = 0; ; waited += hiddenLookMs) {
    // In this order: it may make its path again in between.
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
        const pid = answer.type === 'status' ? (answer.app.keeper?.pid ?? answer.app.processes[0]?.pid) : undefined
        const what = `an app with the name ${name} runs already${pid === undefined ? '' : ` (process ${pid})`}`
        throw notStarted(what, `Reload that one (handover reload ${name}), or choose another --name`)
      }
    } catch (error) {
      if (!(error instanceof NobodyListens)) throw error
    }
  }
}
