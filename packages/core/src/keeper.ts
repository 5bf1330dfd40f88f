/**
 * What the command `handover` is made of, for that package alone: not a public face, and it changes without notice.
 */

import type { HandoverOptions } from './options.js'
import { generationOfProcess } from './this-process.js'

export { activation } from './activation.js'
export { Channel, openChannel, deadlineIn, left, type Deadline } from './channel.js'
export { HandoverError, isErrorCode, withoutStop } from './errors.js'
export { closeLater } from './memory-file.js'
export { initialEnvironment, leaveTerminal, takeInheritance, terminalIsGone, unavailable, type Inheritance } from './host.js'
export { object, reader, type Shapes } from './lines.js'
export { keeperMark } from './kept.js'
export { parseWorkerMessage, type CountedBy, type KeeperMessage, type Spoken, type Wishes, type WorkerMessage } from './keeper-messages.js'
export { withOwnInspector } from './inspector-port.js'
export { channelTo, openPairs, start, startInspected, type Ended, type Started } from './launch.js'
export type { OfferedListener, Peer, SectionPhase } from './messages.js'
export { addon, check, native, nativeFile, nativeMissing, systemError } from './native.js'
export { handOver, type PredecessorSide } from './predecessor.js'
export { listed, type Report } from './report.js'
export { isAlive, isTraced, whyDeaf } from './processes.js'
export { followLast, nodeNow, requireDirectory, startingPoint, throughLink, typedScript, type CommandLine, type StartingPoint } from './starting-point.js'
export { accepts, StateMachine, type StateName } from './states.js'
export { connectControl, connectKeeper, ControlServer, listenerPid, takeName, type Client, type ControlSide, type TakenName } from './control.js'
export { hiddenHolder } from './control-files.js'
export { Terminal } from './terminal.js'
export { filesOf, findPlaces, PlaceProblem, placesOfWorkers } from './places.js'
export type * from './status.js'
export { monotonicMicroseconds, notifySystemd } from './systemd.js'
export { watchdogBeatMs } from './watchdog.js'

/**
 * Adopts whatever listens in this process from now on, although the program knows nothing of it: every server of http, https, http2 and net when it
 * listens, and every UDP socket that is bound to a port of its own. What the program gives to an adapter as well goes by the adapter's options.
 * `options` belong to the process. Throws HANDOVER_OPTION.
 */
export function adoptEverything(options: HandoverOptions = {}): void {
  const generation = generationOfProcess()
  generation.configure(options)
  generation.adoptEverything()
}
export { pathsMark } from './path-guard.js'
export { fileId, SocketFileHold, type SocketFile } from './socket-files.js'
