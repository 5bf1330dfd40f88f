/**
 * The internal modules that tests use, each named once: a module that moves or changes its name costs one line here.
 * vitest.config.mts lets Node load them, so that a test has the same copy as the modules that it tests: those that `npm run build` made.
 * What is public (`@handover/core`, `/fd`, `/ws`, `@handover/load`, …) has an address of its own and does not belong here.
 */

import { fileURLToPath } from 'node:url'

const built = (file: string): string => fileURLToPath(new URL(`../../packages/${file}`, import.meta.url))

/** What tests start, by its path. */
export const commandFile = built('cli/dist/bundle/main.js')
export const preloadFile = built('cli/dist/bundle/preload.js')
export const coreFile = built('core/dist/bundle/index.mjs')
export const demoFile = built('load/dist/demo/demo.js')
export const benchFile = built('load/dist/bench/main.js')

export { group } from '../../packages/cli/dist/client/group-apps.js'
export { parseCommand } from '../../packages/cli/dist/command-line/arguments.js'
export { helpOf, overview } from '../../packages/cli/dist/command-line/help.js'
export { describeTiming, phasesOf } from '../../packages/cli/dist/commands/reload-timing.js'
export { describeApps } from '../../packages/cli/dist/commands/status-text.js'
export { NoAnswer, statusOf } from '../../packages/cli/dist/control/ask.js'
export type { DrillResult } from '../../packages/cli/dist/drill/drill-text.js'
export { drill, type DrillOptions, type DrillStatus } from '../../packages/cli/dist/drill/drill.js'
export { placesOf } from '../../packages/cli/dist/drill/target.js'
export { Failure } from '../../packages/cli/dist/failure.js'
export { CheckpointStore, mostCheckpoints } from '../../packages/cli/dist/keeper/checkpoint-store.js'
export { CountStore } from '../../packages/cli/dist/keeper/count-store.js'
export { probe, type ProbeProtocol, type ProbeRequest, type ProbeResult } from '../../packages/cli/dist/keeper/http-probe.js'
export { Keeper } from '../../packages/cli/dist/keeper/keeper.js'
export { statusOfApp } from '../../packages/cli/dist/keeper/keeper-status.js'
export { ListenerMembers, type Offer } from '../../packages/cli/dist/keeper/listener-members.js'
export { reapOrphans } from '../../packages/cli/dist/keeper/reap-orphans.js'
export type { SlotSide } from '../../packages/cli/dist/keeper/slot-context.js'
export { SlotLifecycle, slotMoves, type SlotState, type SlotStateName } from '../../packages/cli/dist/keeper/slot-state.js'
export { Slot } from '../../packages/cli/dist/keeper/slot.js'
export { Spare } from '../../packages/cli/dist/keeper/spare.js'
export { Worker, type Line, type WorkerSide } from '../../packages/cli/dist/keeper/worker.js'
export { ConnectionReceiver } from '../../packages/core/dist/connections/connection-receiver.js'
export { ConnectionSender, type OutgoingConnection } from '../../packages/core/dist/connections/connection-sender.js'
export { stayText } from '../../packages/core/dist/connections/stay-reasons.js'
export { ConnectionTracker } from '../../packages/core/dist/connections/connection-tracker.js'
export { Generation } from '../../packages/core/dist/generation/generation.js'
export { placesIn, type World } from '../../packages/core/dist/control/control-places.js'
export type { Host } from '../../packages/core/dist/handover/host.js'
export type { LaunchedSuccessor } from '../../packages/core/dist/handover/launch.js'
export { handOver, watchSuccessor } from '../../packages/core/dist/handover/predecessor.js'
export type { Clock } from '../../packages/core/dist/platform/clock.js'
export { closeListener } from '../../packages/core/dist/platform/node/listen-handle.js'
export { Pulse } from '../../packages/core/dist/platform/pulse.js'
export { succeed, takeOffer, type SuccessorSide } from '../../packages/core/dist/handover/successor.js'
export { isEphemeral, mismatch, type AskedAddress } from '../../packages/core/dist/listeners/listener-match.js'
export { KeeperLink, type KeeperLinkSide, type KeeperSeat } from '../../packages/core/dist/keeper-link/keeper-link.js'
export { ListenerRegistry } from '../../packages/core/dist/listeners/listener-registry.js'
export { SettingsOfProcess, variableOf } from '../../packages/core/dist/options.js'
export { inspectorIn } from '../../packages/core/dist/platform/inspector-port.js'
export { keeperMark, parseKeeperMark, successorMark, workerWords } from '../../packages/core/dist/platform/marks.js'
export { openMemoryFile, takeTextFile, textFile } from '../../packages/core/dist/platform/memory-file.js'
export { native, type Native } from '../../packages/core/dist/platform/native.js'
export { meansHangup } from '../../packages/core/dist/platform/terminal.js'
export { BlockingChannel } from '../../packages/core/dist/protocol/blocking-channel.js'
export { Channel, openChannel } from '../../packages/core/dist/protocol/channel.js'
export { deadlineIn } from '../../packages/core/dist/protocol/deadline.js'
export { handoverMessages, protocol, shapes, speaks, type Message, type MessageType, type MovedConnection, type OfferedListener } from '../../packages/core/dist/protocol/handover-messages.js'
export { maxLineBytes } from '../../packages/core/dist/protocol/json-lines.js'
export { keeperMessages, keeperShapes, workerMessages, workerShapes, type KeeperMessage, type WorkerMessage } from '../../packages/core/dist/protocol/keeper-messages.js'
export { Lifecycle, moves, type LifecycleState, type Next, type State } from '../../packages/core/dist/protocol/lifecycle.js'
export { decodeState, encodeState } from '../../packages/core/dist/protocol/value-codec.js'
export { Aggregates, type Aggregate, type Exchange } from '../../packages/core/dist/sharing/aggregates/aggregate.js'
export type { Snapshot } from '../../packages/core/dist/sharing/aggregates/count-once.js'
export { decodePlain, encodePlain, readsPlain } from '../../packages/core/dist/sharing/sections/plain-value.js'
export { readSection, writeSection } from '../../packages/core/dist/sharing/sections/section-file.js'
export type { SectionsToSend } from '../../packages/core/dist/sharing/sections/sections-to-send.js'
export { cannotStore, forgetCheckpoint, storeCheckpoint, storedCheckpoints } from '../../packages/core/dist/sharing/sections/systemd-store.js'
export type { Section } from '../../packages/core/dist/sharing/sharing-api.js'
export { FrameCounter } from '../../packages/core/dist/websocket/frame-counter.js'
export { countCosts } from '../../packages/load/dist/bench/counts.js'
export { exact, plus, toNumber, type Exact } from '../../packages/prom-client/dist/exact.js'
export { keyOf, type Labels } from '../../packages/prom-client/dist/metrics.js'
export { readSnapshot, writeSnapshot } from '../../packages/prom-client/dist/snapshot-text.js'
export { Example } from '../../packages/load/dist/example.js'
export { waitWhileItMoves, workOf } from '../../packages/load/dist/client/progress.js'
export { seededRandom, type Random } from '../../packages/load/dist/client/random.js'
