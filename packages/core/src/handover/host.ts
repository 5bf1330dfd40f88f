import type { LogLevel } from '../options.js'
import { commandLine } from '../platform/command-line.js'
import { initialEnvironment } from '../platform/environment.js'
import { leaveTerminal, terminalIsGone } from '../platform/terminal.js'
import { launch, type LaunchedSuccessor } from './launch.js'

export interface Host {
  /** `paths`: of the Unix sockets that this process serves. */
  launch(paths: readonly string[]): Promise<LaunchedSuccessor>
  log(level: LogLevel, line: string): void
  exit(status: number): void
}

export function realHost(log: Host['log']): Host {
  const command = commandLine((text) => { log('warn', text) })
  const env = initialEnvironment()
  return {
    launch: async (paths) => await launch(command(), env, paths),
    log,
    exit: (status) => {
      // Its terminal may have gone without a word to this process: a keeper heard it.
      if (terminalIsGone()) leaveTerminal()
      process.exit(status)
    }
  }
}
