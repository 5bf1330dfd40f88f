/**
 * @handover/core: reload any http, https, http2, net or UDP server without losing a request.
 *
 * One process has one generation, so the object behind these functions is one per process, even where the package is loaded twice.
 */

import './generation/start-times.js'
import type dgram from 'node:dgram'
import type net from 'node:net'
import type { Handover } from './generation/handover-api.js'
import type { HandoverOptions, LogLevel } from './options.js'
import type { Section } from './sharing/sharing-api.js'
import type { AggregateOptions } from './sharing/aggregates/aggregate.js'
import { generationOfProcess } from './generation/this-process.js'

export { HandoverError, errorTable, type ErrorCode } from './errors.js'
export type { Draining } from './handover/shutdown.js'
export type { Aggregate, AggregateOptions } from './sharing/aggregates/aggregate.js'
export type { Handover, HandoverEvents, ReloadOptions } from './generation/handover-api.js'
export type { HandoverOptions, LogLevel } from './options.js'
export type { ConnectionCounts, CutRequest, Report, StateReport } from './protocol/report.js'
export type { Neighbour, PeerChannel, PeerMessageInfo, Restored, RestoreInfo, SaveInfo, Section, Service } from './sharing/sharing-api.js'
export type { MoveOptions, OnMoved } from './connections/application-moves.js'
export type { LifecycleState as StateName } from './protocol/lifecycle.js'

const generation = generationOfProcess()

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

export const handover = Object.defineProperties(adopt, {
  generation: { get: () => generation.generation },
  state: { get: () => generation.state },
  lastReport: { get: () => generation.lastReport },
  events: { value: generation.events },
  reload: { value: (...args: Parameters<Handover['reload']>) => generation.reload(...args) },
  ready: { value: () => { generation.ready() } },
  stop: { value: () => generation.stop() },
  move: { value: (...args: Parameters<Handover['move']>) => generation.move(...args) },
  onMoved: { value: (...args: Parameters<Handover['onMoved']>) => { generation.onMoved(...args) } },
  share: { value: (name: string, section: Section) => { generation.share(name, section) } },
  peer: { value: generation.peer },
  aggregate: { value: (name: string, options: AggregateOptions<unknown>) => generation.aggregate(name, options) },
  service: { get: () => generation.service }
}) as HandoverFunction

export const events = handover.events
export const reload: Handover['reload'] = (options) => generation.reload(options)
export const ready = (): void => { generation.ready() }
export const stop = (): Promise<void> => generation.stop()
export const move: Handover['move'] = (socket, options) => generation.move(socket, options)
export const share: Handover['share'] = (name, section) => { generation.share(name, section) }
export const peer = generation.peer
export const aggregate: Handover['aggregate'] = (name, options) => generation.aggregate(name, options)
export const onMoved: Handover['onMoved'] = (kind, take) => { generation.onMoved(kind, take) }

/**
 * For adapters: makes every server reloadable that answers with `listener`, no matter where and when it is created. With `mayFail` a
 * successor can serve although one of them does not listen. Throws HANDOVER_OPTION.
 */
export function adoptRequestListener(
  listener: (...args: never[]) => unknown, options: HandoverOptions = {}, { mayFail = false } = {}
): void {
  generation.configure(options)
  generation.adoptRequestListener(listener, mayFail, options.canMove)
}

/** For adapters: a line in the log of this process. */
export const log = (level: LogLevel, line: string): void => { generation.log(level, line) }

/** For adapters: why a connection is not moved, for the report. */
export const noteStay = (socket: net.Socket, reason: string): void => { generation.noteStay(socket, reason) }

/** For adapters: the function that onMoved() got for this kind takes no more connections, and the kind is free again. */
export const forgetMoved = (kind: string): void => { generation.forgetMoved(kind) }
