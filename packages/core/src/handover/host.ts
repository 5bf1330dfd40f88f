/**
 * The world outside of a generation, as one object: its process, signals, time, terminal, whoever started it, and the processes that it
 * starts and ends.
 *
 * `realHost` is this process. A test gives a generation a host of its own, and has as many generations in one process as it likes: their
 * order, their deadlines and their deaths are then a matter of milliseconds. Sockets and descriptors are real in both.
 */

import { takeLine, type KeeperSeat } from '../keeper-link/keeper-link.js'
import { activation } from '../platform/activated-sockets.js'
import type { LogLevel } from '../options.js'
import { unavailable } from '../platform/availability.js'
import { systemClock, type Clock } from '../platform/clock.js'
import { commandLine } from '../platform/command-line.js'
import { initialEnvironment, takeInheritance } from '../platform/environment.js'
import { takeInspectorMark } from '../platform/inspector-port.js'
import { endProcess, isAlive } from '../platform/processes.js'
import { writeStderr, type InheritedStderr } from '../platform/stderr-relay.js'
import { leaveTerminal, Terminal, terminalIsGone } from '../platform/terminal.js'
import { BlockingChannel } from '../protocol/blocking-channel.js'
import { launch, type LaunchedSuccessor } from './launch.js'

/** What a predecessor or a keeper left to the process that it started. */
export interface Inherited {
  /** The channel to the predecessor that started this process. Its offer is heard in the first listen(), which blocks the thread. */
  readonly contact?: BlockingChannel | undefined
  /** Where stderr really goes: until the commit descriptor 2 leads through the predecessor. */
  readonly stderr?: Pick<InheritedStderr, 'restore' | 'passOn'> | undefined
  /** The address that the inspector was to have, where another process has it. */
  readonly inspectorWanted?: string | undefined
}

export interface Host {
  readonly pid: number
  /** The variables of this process, without the marks of whoever started it. */
  readonly env: NodeJS.ProcessEnv
  readonly clock: Clock
  /** Emits the signals that this process gets, and 'exit', as `process` does. */
  readonly signals: NodeJS.EventEmitter
  /** Tells the hangup of the terminal from a SIGHUP that asks for a reload. */
  readonly terminal: Pick<Terminal, 'watch' | 'unwatch' | 'hangup'>
  readonly inherited: Inherited
  /** Why nothing of this process can be handed over; undefined where it can. */
  readonly unavailable: string | undefined
  /** The place at a keeper that this process was started in; undefined where no keeper did. To be asked once. */
  takeSeat(): KeeperSeat | undefined
  /** Where a line goes of a process whose program has set no `log`. */
  log(level: LogLevel, line: string): void
  /**
   * Starts this program again, as a successor. `paths`: of the Unix sockets that this process serves, which the successor's program must
   * not remove. `warn` hears what is not as it was at the first start. Throws HANDOVER_SPAWN.
   */
  launch(paths: readonly string[], warn: (line: string) => void): Promise<LaunchedSuccessor>
  isAlive(pid: number): boolean
  /** Ends another process at once. False where it cannot: it is gone, or in another container. */
  kill(pid: number): boolean
  /** Ends this process. Without a status: with the one that the program has set, else 0. */
  exit(status?: number): void
}

/** This process. Call it before the program reads the environment: the marks of whoever started it are taken out. */
export function realHost(env: NodeJS.ProcessEnv): Host {
  const inheritance = takeInheritance(env)
  const inspectorWanted = takeInspectorMark(env)
  // While the descriptors are what they were.
  activation()
  const off = unavailable()
  let warn: (line: string) => void = () => undefined
  const command = commandLine((line) => { warn(line) })
  const initial = initialEnvironment()
  return {
    pid: process.pid,
    env,
    clock: systemClock,
    signals: process,
    terminal: new Terminal(),
    inherited: { contact: inheritance && new BlockingChannel(inheritance.messages, inheritance.descriptors), stderr: inheritance?.stderr, inspectorWanted },
    unavailable: off,
    takeSeat: () => (off === undefined ? takeLine(env) : undefined),
    log: (level, line) => { writeStderr(`handover: ${level === 'info' ? '' : `${level}: `}${line}\n`) },
    launch: async (paths, heard) => {
      warn = heard
      return await launch(command(), initial, paths)
    },
    isAlive,
    kill: endProcess,
    exit: (status = Number(process.exitCode ?? 0)) => {
      // Its terminal may have gone without a word to this process: a keeper heard it.
      if (terminalIsGone()) leaveTerminal()
      process.exit(status)
    }
  }
}
