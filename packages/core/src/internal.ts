/**
 * What the command `handover` and the adapters are made of, for these packages alone: not a public door, and it changes without notice. It
 * re-exports by name, and does nothing else: in the bundle each name loads its own module when it is first used.
 */

export { adoptRequestListener } from './adapters.js'
export { connectControl, connectKeeper, listenerPid, takeName } from './control/control-client.js'
export type { Client } from './control/control-connections.js'
export { hiddenHolder, placesElsewhere } from './control/control-files.js'
export { filesOf, findPlaces, PlaceProblem, placesOfWorkers } from './control/control-places.js'
export { warmUp } from './connections/warm-up.js'
export { ControlSocket, type ControlSide } from './control/control-socket.js'
export { HandoverError, partsOf, repairTodo, withoutStop } from './errors.js'
export { adoptEverything } from './generation/adopt-everything.js'
export { watchdogBeatMs } from './generation/watchdog.js'
export { channelTo } from './handover/launch.js'
export { handOver, type PredecessorSide } from './handover/predecessor.js'
export { isEphemeral, isInTheWay } from './listeners/listener-match.js'
export { fileId, SocketFileHold, type SocketFile } from './listeners/socket-file-hold.js'
export { activation } from './platform/activated-sockets.js'
export { unavailable } from './platform/availability.js'
export {
  followLast, nodeNow, requireDirectory, startingPoint, throughLink, typedScript, type CommandLine, type StartingPoint
} from './platform/command-line.js'
export { debug } from './platform/debug.js'
export { initialEnvironment, takeInheritance, type Inheritance } from './platform/environment.js'
export { withOwnInspector } from './platform/inspector-port.js'
export { keeperMark, spareMark, workerWords } from './platform/marks.js'
export { closeLater } from './platform/memory-file.js'
export { addon, check, native, nativeFile, nativeMissing, systemError } from './platform/native.js'
export { prebuilt } from './platform/native-binary.js'
export { pathsMark } from './platform/path-guard.js'
export { makePool } from './platform/pool.js'
export { endsContainer, endsService, isAlive, isTraced, memoryOf, socketsOf, statOf, whyDeaf, wordsOf } from './platform/processes.js'
export { openPairs } from './platform/socket-pairs.js'
export { awaitTurn, type SpareTurn } from './platform/spare.js'
export { start, startInspected, type ProcessEnd, type SpawnedProcess } from './platform/spawn.js'
export { starterDescriptors } from './platform/starter-descriptors.js'
export { notifySystemd, reloadNotice } from './platform/systemd-notify.js'
export { StopSenders } from './platform/stop-senders.js'
export { leaveTerminal, terminalIsGone } from './platform/terminal.js'
export { Terminal } from './platform/terminal.js'
export { Channel, openChannel } from './protocol/channel.js'
export { logLine } from './platform/log-line.js'
export { watchBoots, type Boot } from './control/boot-watch.js'
export { parseControlAnswer, reloadOutcomeShape, reloadRecordShape } from './protocol/control-messages.js'
export type {
  AppStatus, CheckpointStatus, ControlAnswer, ControlRequest, ErrorReport, HandoverRecord, KeeperStatus, ProcessStatus, ReloadEvent,
  ReloadOutcome, ReloadRecord, ReloadRequest, ServiceStatus, SpareStatus
} from './protocol/control-messages.js'
export { deadlineIn, left, withDeadline, type Deadline } from './protocol/deadline.js'
export type { Received } from './protocol/descriptors.js'
export { listenerShape, type OfferedListener, type Peer } from './protocol/handover-messages.js'
export { count, LineReader, list, number, optional, orNull, record, shape, string, vocabulary, type Shapes } from './protocol/json-lines.js'
export {
  countedByShape, workerMessages, type CountedBy, type KeeperMessage, type Spoken, type Wishes, type WorkerMessage
} from './protocol/keeper-messages.js'
export { SettingsOfProcess } from './options.js'
export { accepts, isLeaving, isStarting, Lifecycle, type LifecycleState } from './protocol/lifecycle.js'
export { StateMachine } from './protocol/state-machine.js'
export { errorOf, errorReport, reloadBegins, reloadOutcome } from './protocol/reload-outcome.js'
export { describeProcess, listed, type Report } from './protocol/report.js'
export { mergedIds } from './sharing/aggregates/count-once.js'
export { requestsIn, serviceTopic } from './sharing/service-topic.js'
