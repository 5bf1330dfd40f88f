/**
 * The drain of one WebSocketServer: WebSockets leave between two messages, with the state that save() gives. Those that stay are told 1012,
 * service restart: shortly before the drain deadline, in a stop at once.
 */

import net from 'node:net'
import { log, noteStay } from '../adapters.js'
import { handover, type Draining } from '../index.js'
import { textOf } from '../errors.js'
import { LoopBudget } from '../platform/loop-budget.js'
import { hold, isOpen, obstacleOf, release, stayText, type TrackedWebSocket, type TrackedWebSockets } from './tracked-websocket.js'
import { serviceRestart, type SavedWebSocket } from './websocket-arrival.js'
import type { MovableWebSocket } from './websocket.js'

const lookMs = 50
/**
 * After one could not leave although nothing was in its way: the channel is full for a moment, or the successor does not take it at all.
 */
const againMs = 1_000
/** How many are held still at a time. */
const mostHeld = 256
/** WebSockets are told to go one after the other within this time, so that they do not come back at the same moment. */
const mostFarewellMs = 5_000
/** In a stop, which should not take long. */
const mostStopFarewellMs = 2_000
/** RFC 6455, section 7.4.1: the connection was lost without a close frame. */
const abnormalClosure = 1006
/** This part of the farewell tells WebSockets to go. The rest is for the answers of their clients. */
const tellingPart = 0.6

export class WebSocketDrain<W extends MovableWebSocket> {
  readonly #of: TrackedWebSockets<W>
  readonly #left: () => void
  readonly #moves: boolean
  readonly #farewellAt: number
  readonly #farewellUntil: number
  readonly #looking: NodeJS.Timeout
  readonly #farewells = new Map<W, NodeJS.Timeout>()
  readonly #complaints = new Set<string>()
  #moved: W[] = []
  /** To be looked at, whether they can move. */
  readonly #candidates = new Set<TrackedWebSocket<W>>()
  #pumping = false
  #saidGoodbye = false
  #over = false

  /** `left`: called when a WebSocket has moved. */
  constructor(of: TrackedWebSockets<W>, left: () => void, { successor, endsInMs }: Draining) {
    this.#of = of
    this.#left = left
    this.#moves = successor !== null
    const now = performance.now()
    const farewellMs = Math.min(this.#moves ? mostFarewellMs : mostStopFarewellMs, endsInMs / 5)
    this.#farewellAt = this.#moves ? now + endsInMs - farewellMs : now
    this.#farewellUntil = this.#farewellAt + (this.#moves ? farewellMs * tellingPart : farewellMs)
    for (const connection of of.counted.values()) connection.notBefore = 0
    this.#looking = setInterval(() => { this.#look() }, lookMs).unref()
    this.#look()
  }

  /** The process has no WebSocket any more. */
  end(): void {
    this.#over = true
    clearInterval(this.#looking)
    for (const timer of this.#farewells.values()) clearTimeout(timer)
  }

  /** The process serves again: whoever had moved is gone with the successor, and no other process tells the application. */
  undo(): void {
    this.end()
    // Each by itself, as ws would: a listener may throw.
    for (const ws of this.#moved.splice(0)) process.nextTick(() => { ws.emit('close', abnormalClosure, Buffer.alloc(0)) })
  }

  /** Something has come, which ends between two messages. */
  candidate(connection: TrackedWebSocket<W>): void {
    if (!this.#moves) return
    this.#candidates.add(connection)
    this.#wake()
  }

  #look(): void {
    if (this.#moves) {
      for (const connection of this.#of.counted.values()) this.#candidates.add(connection)
      this.#wake()
    }
    if (performance.now() >= this.#farewellAt) this.#sayGoodbye()
  }

  /** Looks in the check phase: what had arrived has been read by then, and what ws and the application do at once with it is done. */
  #wake(): void {
    if (this.#pumping || this.#candidates.size === 0 || this.#of.held >= mostHeld) return
    this.#pumping = true
    setImmediate(() => {
      this.#pumping = false
      if (this.#over) return
      const budget = new LoopBudget()
      for (const connection of this.#candidates) {
        this.#candidates.delete(connection)
        this.#tryToLeave(connection)
        if (this.#of.held >= mostHeld || budget.isSpent) break
      }
      this.#wake()
    })
  }

  #tryToLeave(connection: TrackedWebSocket<W>): void {
    const { ws } = connection
    if (connection.held !== undefined || !isOpen(ws) || performance.now() < connection.notBefore) return
    connection.stays = obstacleOf(connection)
    if (connection.stays !== undefined) return
    let state: unknown
    try {
      state = this.#of.save(ws)
    } catch (error) {
      connection.stays = 'saveThrows'
      return this.#complain('save', `save() threw, so a WebSocket stays for now (others are not logged): ${textOf(error)}`)
    }
    if (state === null || state === undefined) connection.stays = 'saveSaysNothing'
    else if (isPromise(state)) {
      connection.stays = 'saveIsAsync'
      connection.notBefore = Infinity
      this.#complain('save', 'save() answered a promise, so a WebSocket stays (others are not logged): it must not be async, since messages would come while it works')
      // Its failure must not end the process as well.
      state.then(undefined, () => undefined)
    } else if (isOpen(ws)) this.#leave(connection, state)
  }

  #leave(connection: TrackedWebSocket<W>, state: unknown): void {
    const { ws, socket, request, routed } = connection
    const saved: SavedWebSocket = { state, request, protocol: ws.protocol, routed }
    hold(this.#of, connection)
    handover.move(socket, { kind: this.#of.kind, state: saved }).then((moved) => {
      if (moved) {
        this.#of.held--
        this.#of.counted.delete(ws)
        this.#moved.push(ws)
        this.#left()
      } else {
        release(this.#of, connection)
        connection.stays = 'notTaken'
        connection.notBefore = performance.now() + againMs
      }
      this.#wake()
    }, (error: unknown) => {
      release(this.#of, connection)
      connection.stays = 'stateNotSent'
      connection.notBefore = Infinity
      this.#complain('state', `a WebSocket stays (others are not logged): ${String(error)}`)
      this.#wake()
    })
  }

  #complain(about: 'save' | 'state', line: string): void {
    if (this.#complaints.has(about)) return
    this.#complaints.add(about)
    log('error', line)
  }

  // ---- what stays ----

  #sayGoodbye(): void {
    const reasons = new Map<string, number>()
    for (const ws of new Set([...(this.#of.wss.clients ?? []), ...this.#of.counted.keys()])) {
      if (!isOpen(ws) || this.#farewells.has(ws)) continue
      const { socket, stays = 'late' } = this.#of.counted.get(ws) ?? this.#of.uncounted.get(ws) ?? { stays: 'notSeen' as const }
      const reason = stayText(stays, ws)
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
      if (this.#moves && socket instanceof net.Socket) noteStay(socket, reason)
      const timer = setTimeout(() => {
        // A WebSocket that is on its way just now is told if it comes back.
        if (!isOpen(ws)) this.#farewells.delete(ws)
        else ws.close(serviceRestart, 'service restart')
      }, Math.random() * Math.max(0, this.#farewellUntil - performance.now()))
      this.#farewells.set(ws, timer.unref())
    }
    if (this.#saidGoodbye || reasons.size === 0) return
    this.#saidGoodbye = true
    const count = [...reasons.values()].reduce((sum, each) => sum + each)
    const why = this.#moves ? `: ${[...reasons].map(([reason, times]) => `${times} ${reason}`).join(', ')}` : ''
    log('info', `closing ${count} WebSocket${count === 1 ? '' : 's'} with code ${serviceRestart}, service restart${why}`)
  }
}

const isPromise = (state: unknown): state is PromiseLike<unknown> => typeof (state as Partial<PromiseLike<unknown>>).then === 'function'
