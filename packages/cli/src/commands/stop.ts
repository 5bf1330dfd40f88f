/** `handover stop`: every process of the app drains and ends, and this waits for it. */

import { chooseApp, fileOf } from '../client/choose-app.js'
import { findApps } from '../client/find-apps.js'
import { identityOf, titleOf, type App } from '../client/group-apps.js'
import type { Command } from '../command-line/arguments.js'
import { ask, NoListener } from '../control/ask.js'
import { Failure } from '../failure.js'
import { printable } from '../text.js'
import { refusal, sayAtInterrupt } from './reload.js'

const answerMs = 10_000

/** Answers the exit status. Throws a Failure if no process could be asked. */
export async function stop({ target, json }: Extract<Command, { is: 'stop' }>): Promise<number> {
  const app = chooseApp(await findApps(), target)
  // Serving processes first: then a predecessor that could still serve again hears that it need not.
  const pids = new Set<number>()
  const say = (line: string): void => { if (!json) process.stdout.write(`${printable(line)}\n`) }
  sayAtInterrupt('the drain goes on without this command. See handover status')
  await Promise.all(filesOf(app).map((file) => stopAt(file, (pid) => {
    if (!pids.has(pid)) say(`process ${pid} drains and ends`)
    pids.add(pid)
  })))
  if (pids.size === 0) throw new Failure({ what: `${titleOf(app)} ended by itself` })
  say(`${titleOf(app)} has ended`)
  if (json) process.stdout.write(`${JSON.stringify({ ok: true, stopped: [...pids] })}\n`)
  return 0
}

/** A keeper stops its workers itself. */
function filesOf(app: App): string[] {
  if (app.keeper || app.deafKeeper?.lives) return [fileOf(app)]
  const files = app.processes.map((process) => app.ownFiles.get(identityOf(process))).filter((file) => file !== undefined)
  return files.length > 0 ? files : [fileOf(app)]
}

/** Resolves when the process has ended, which closes the connection. */
async function stopAt(file: string, stopping: (pid: number) => void): Promise<void> {
  try {
    // A drain has a deadline of its own.
    for await (const answer of ask(file, { type: 'request', verb: 'stop' }, (told) => (told === 0 ? answerMs : undefined))) {
      if (answer.type === 'progress') continue
      if (answer.type !== 'stopping') throw refusal(answer)
      answer.pids.forEach(stopping)
    }
  } catch (error) {
    // It has ended in between.
    if (!(error instanceof NoListener)) throw error
  }
}
