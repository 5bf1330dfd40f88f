/**
 * The world outside of a generation, as one object: its process, signals, time, terminal, what its starter left to it, and the processes
 * that it starts and ends.
 *
 * In a program it is the real one (generation/this-process.ts). In a test several generations live in one process, each with a host of its
 * own: their order, deadlines and deaths take milliseconds. Sockets and descriptors are real in both.
 */

import type { KeeperSeat } from '../keeper-link/keeper-link.js'
import type { LogLevel } from '../options.js'
import type { Clock } from '../platform/clock.js'
import type { InheritedStderr } from '../platform/stderr-relay.js'
import type { StopSenders } from '../platform/stop-senders.js'
import type { Terminal } from '../platform/terminal.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import type { LaunchedSuccessor } from './launch.js'

/** What a predecessor or a keeper left to the process that it started. */
export interface Inherited {
  /** The channel to the predecessor. Its offer is heard in the first listen(), which blocks the thread. */
  readonly contact?: BlockingChannel | undefined
  /** The real stderr: until the commit descriptor 2 leads through the predecessor. */
  readonly stderr?: Pick<InheritedStderr, 'restore' | 'passOn'> | undefined
  /** The address that the inspector was to have, where another process has it. */
  readonly inspectorWanted?: string | undefined
}

export interface Host {
  readonly pid: number
  /** The variables of this process, without the marks of its starter. */
  readonly env: NodeJS.ProcessEnv
  readonly clock: Clock
  /** Emits the signals that this process gets, and 'exit', as `process` does. */
  readonly signals: NodeJS.EventEmitter
  /** Tells the hangup of the terminal from a SIGHUP that asks for a reload. */
  readonly terminal: Pick<Terminal, 'watch' | 'unwatch' | 'hangup'>
  /** Tells a second signal to stop from the first one that is passed on. */
  readonly stops: Pick<StopSenders, 'watch' | 'isSameStop'>
  readonly inherited: Inherited
  /** Why nothing of this process can be handed over; undefined where it can. */
  readonly unavailable: string | undefined
  /** Something of the program listened when this package was loaded: the next version will find its port in use. */
  readonly listenedBefore?: boolean
  /** The seat at the keeper that started this process; undefined without a keeper. Call it once. */
  takeSeat(): KeeperSeat | undefined
  /** Where log lines go while the program has set no `log`. */
  log(level: LogLevel, line: string): void
  /**
   * Starts this program again, as a successor. `paths`: the Unix sockets that this process serves, which the successor's program must not
   * remove. `warn` hears what has changed since the first start. Throws HANDOVER_SPAWN.
   */
  launch(paths: readonly string[], warn: (line: string) => void): Promise<LaunchedSuccessor>
  isAlive(pid: number): boolean
  /** Ends another process at once. False where that fails: it is gone, or in another container. */
  kill(pid: number): boolean
  /** Ends this process. Without a status: with the one that the program has set, else 0. */
  exit(status?: number): void
}
