/**
 * @handover/core: reload any http, https, http2, net or UDP server without losing a request.
 *
 * One process has one generation, so the object behind these functions is one per process, even where the package is loaded twice.
 */

import './generation/start-times.js'
import type dgram from 'node:dgram'
import type net from 'node:net'
import type { Handover } from './generation/handover-api.js'
import type { HandoverOptions } from './options.js'
import type { Section } from './sharing/sharing-api.js'
import type { AggregateOptions } from './sharing/aggregates/aggregate.js'
import type { LifecycleState } from './protocol/lifecycle.js'
import { generationOfProcess } from './generation/this-process.js'

export { HandoverError, errorTable, type ErrorCode } from './errors.js'
export type { Draining } from './handover/shutdown.js'
export type { Aggregate, AggregateOptions } from './sharing/aggregates/aggregate.js'
export type { Handover, HandoverEvents, ReloadOptions } from './generation/handover-api.js'
export type { HandoverOptions, LogLevel } from './options.js'
export type { ConnectionCounts, CutRequest, Report, StateReport } from './protocol/report.js'
export type { Neighbour, PeerChannel, PeerMessageInfo, Restored, RestoreInfo, SaveInfo, Section, Service } from './sharing/sharing-api.js'
export type { MoveOptions, OnMoved } from './connections/application-moves.js'

const generation = generationOfProcess()

/** Where a process stands: the values of `handover.state`. PROTOCOL.md has which may follow which. */
export type StateName = LifecycleState

/** The function of the package; it is at the same time the object of the process: `handover.generation`, `handover.reload()` and so on. */
export interface HandoverFunction extends Handover {
  /**
   * Makes `server` reloadable: its listen() inherits the listener of a predecessor, or binds. Give it the server before listen().
   *
   * `server`: from http, https, http2 or net, or a dgram socket. Returns the same server. `options` belong to the process; times are in
   * milliseconds. Throws HANDOVER_OPTION.
   */
  <T extends net.Server | dgram.Socket>(server: T, options?: HandoverOptions): T
}

function adopt<T extends net.Server | dgram.Socket>(server: T, options: HandoverOptions = {}): T {
  generation.configure(options)
  generation.adopt(server, options.canMove)
  return server
}

// A test of a program may put something of its own in the place of each.
const value = (member: unknown): PropertyDescriptor => ({ value: member, writable: true, configurable: true })
const get = (read: () => unknown): PropertyDescriptor => ({ get: read, configurable: true })

/** Makes a server reloadable, and is the object of this process. Throws HANDOVER_OPTION. See HandoverFunction. */
export const handover = Object.defineProperties(adopt, {
  name: value('handover'),
  generation: get(() => generation.generation),
  state: get(() => generation.state),
  lastReport: get(() => generation.lastReport),
  events: value(generation.events),
  reload: value((...args: Parameters<Handover['reload']>) => generation.reload(...args)),
  ready: value(() => { generation.ready() }),
  stop: value(() => generation.stop()),
  move: value((...args: Parameters<Handover['move']>) => generation.move(...args)),
  onMoved: value((...args: Parameters<Handover['onMoved']>) => { generation.onMoved(...args) }),
  share: value((name: string, section: Section) => { generation.share(name, section) }),
  peer: value(generation.peer),
  aggregate: value((name: string, options: AggregateOptions<unknown>) => generation.aggregate(name, options)),
  service: get(() => generation.service)
}) as HandoverFunction

/** `handover.events`: an EventEmitter of HandoverEvents. */
export const events = handover.events
/** `handover.reload()`: resolves with the report when the successor serves; rejects with a HandoverError, and this process serves on. */
export const reload: Handover['reload'] = (options) => generation.reload(options)
/** `handover.ready()`: needed only with `readyWhen: 'manual'`. */
export const ready = (): void => { generation.ready() }
/** `handover.stop()`: drains for at most `drainTimeout` milliseconds (30,000) and ends the process. */
export const stop = (): Promise<void> => generation.stop()
/** `handover.move()`: whether the successor has the connection. Rejects with HANDOVER_STATE or HANDOVER_OPTION. */
export const move: Handover['move'] = (socket, options) => generation.move(socket, options)
/** `handover.share()`: declares a part of the state that goes along at a reload. Throws HANDOVER_OPTION. */
export const share: Handover['share'] = (name, section) => { generation.share(name, section) }
/** `handover.peer`: the live channel to the generation before or after. */
export const peer = generation.peer
/** `handover.aggregate()`: what every process counts, and its total. Throws HANDOVER_OPTION. */
export const aggregate: Handover['aggregate'] = (name, options) => generation.aggregate(name, options)
/** `handover.onMoved()`: takes connections that a predecessor moves here. Throws HANDOVER_OPTION. */
export const onMoved: Handover['onMoved'] = (kind, take) => { generation.onMoved(kind, take) }
