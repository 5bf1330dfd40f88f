/**
 * The face of @handover/load: the strict client, in this process or in one of its own, for any server; and a handler that answers all
 * kinds of its requests (reference.ts).
 *
 * The demo and the benches are programs of this repository: they are neither here nor in the tarball.
 */

export type { Answer } from './client/answer.js'
export { nowMs } from './client/clock.js'
export {
  type Group, type Load, type LoadOptions, type PipelinedGroup, type PostGroup, type SlowGroup, type StreamGroup, probe, startLoad
} from './client/client.js'
export type { Failure, LossReason, Outcome } from './client/connection.js'
export type { Target } from './client/target.js'
export type { Latency } from './client/histogram.js'
export { type LoadProcess, startLoadProcess } from './client/process.js'
export { referenceHandler } from './reference.js'
export { type Kind, streamChunk } from './client/requests.js'
export type { ClosedByServer, KindStats, Latencies, LoadResult, LoadStats, Loss, Slices, VersionStats } from './client/tally.js'
