/**
 * What the parts of one process share, as plain data: its host, its lifecycle, what it listens on, its connections, its state, its keeper.
 *
 * A role or a step takes the context and what is its own beside it. The context decides nothing: generation/ assembles it, and changes its
 * few fields that can change.
 */

import type net from 'node:net'
import type { ConnectionTracker } from '../connections/connection-tracker.js'
import type { ControlSockets } from '../control/control-sockets.js'
import type { KeeperLink } from '../keeper-link/keeper-link.js'
import type { ListenerRegistry } from '../listeners/listener-registry.js'
import type { ServedPaths } from '../listeners/served-paths.js'
import type { LogLevel, Settings } from '../options.js'
import type { Peer } from '../protocol/handover-messages.js'
import type { Lifecycle } from '../protocol/lifecycle.js'
import type { Report } from '../protocol/report.js'
import type { SharedState } from '../sharing/shared-state.js'
import type { Host } from './host.js'
import type { Support } from './support.js'

export interface ProcessContext {
  readonly host: Host
  readonly self: Peer
  readonly lifecycle: Lifecycle
  readonly registry: ListenerRegistry
  /** The Unix paths of this process. */
  readonly paths: ServedPaths
  readonly controlSockets: ControlSockets
  /** What the application shares. */
  readonly state: SharedState
  /** As they are now: programs may set more of them. */
  readonly settings: Settings
  /** Of the servers that listen, or have connections still. */
  readonly connections: ReadonlyMap<net.Server, ConnectionTracker>
  readonly closeHooks: readonly (() => unknown)[]
  readonly support: Support
  /** While it lives: it holds copies of the listeners, starts successors, and decides. */
  keeper: KeeperLink | undefined
  /** From the trigger until the successor serves, or the reload has failed. */
  reloading: boolean
  stopRequested: boolean
  readonly log: (level: LogLevel, line: string) => void
  /** Tells the program, the keeper, and those who wait at the control sockets. */
  readonly publish: (report: Report) => void
}
