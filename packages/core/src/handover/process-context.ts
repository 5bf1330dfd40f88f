/**
 * What the parts of one process share, as plain data: its host, lifecycle, listeners, connections, state and keeper. It decides nothing:
 * generation/ puts it together, and changes the few fields that can change.
 */

import type net from 'node:net'
import type { ConnectionTracker } from '../connections/connection-tracker.js'
import type { ControlSockets } from '../control/control-sockets.js'
import type { KeeperLink } from '../keeper-link/keeper-link.js'
import type { ListenerRegistry } from '../listeners/listener-registry.js'
import type { ServedPaths } from '../listeners/served-paths.js'
import type { LogLevel, Settings } from '../options.js'
import type { Support } from '../platform/support.js'
import type { Peer } from '../protocol/handover-messages.js'
import type { Lifecycle } from '../protocol/lifecycle.js'
import type { Report } from '../protocol/report.js'
import type { SharedState } from '../sharing/shared-state.js'
import type { Host } from './host.js'

export interface ProcessContext {
  readonly host: Host
  readonly self: Peer
  readonly lifecycle: Lifecycle
  readonly registry: ListenerRegistry
  readonly paths: ServedPaths
  readonly controlSockets: ControlSockets
  readonly state: SharedState
  /** As they are now: programs may still set more. */
  readonly settings: Settings
  /** Of the servers that listen, or have connections still. */
  readonly connections: ReadonlyMap<net.Server, ConnectionTracker>
  readonly support: Support
  /** While it lives, it holds copies of the listeners, starts successors, and decides. */
  keeper: KeeperLink | undefined
  /** From the trigger until the successor serves, or the reload has failed. */
  reloading: boolean
  stopRequested: boolean
  readonly log: (level: LogLevel, line: string) => void
  /** Tells the program, the keeper, and the callers at the control sockets. */
  readonly publish: (report: Report) => void
}
