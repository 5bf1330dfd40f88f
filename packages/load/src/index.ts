/**
 * The face of the private package @handover/load: the strict client, in this process or in one of its own, and the contract
 * that servers under load keep.
 */

export { nowMs } from './clock.js'
export { type Group, type Load, type LoadOptions, type PipelinedGroup, type PostGroup, type SlowGroup, type StreamGroup, startLoad } from './client.js'
export { type App, type ExampleOptions, type Reloaded, Example, apps, scriptOf } from './example.js'
export type { LossReason, Target } from './connection.js'
export type { Latency } from './histogram.js'
export { type LoadProcess, startLoadProcess } from './process.js'
export { referenceHandler } from './reference.js'
export { type Kind, streamChunk } from './requests.js'
export type { ClosedByServer, KindStats, Latencies, LoadResult, LoadStats, Loss, VersionStats } from './tally.js'
