/**
 * When a server or a UDP socket listens no more, and when it has closed.
 *
 * A program that closes a server may listen on its port at once, by the same server or by another one. Node emits 'close' later: in another
 * tick, and where the server has connections, when these have ended.
 */

import type { EventEmitter } from 'node:events'

type Acts = WeakMap<EventEmitter, Set<() => void>>

const atEnd: Acts = new WeakMap()
const atClose: Acts = new WeakMap()

function run(acts: Acts, owner: EventEmitter): void {
  const waiting = acts.get(owner)
  acts.delete(owner)
  for (const act of waiting ?? []) act()
}

function over(owner: EventEmitter): void {
  owner.off('close', closed)
  run(atEnd, owner)
  run(atClose, owner)
}

function closed(this: EventEmitter): void {
  // The event of a close() before the listen() that has succeeded meanwhile.
  if (!('listening' in this && this.listening === true)) over(this)
}

function add(acts: Acts, owner: EventEmitter, act: () => void): void {
  if (!owner.listeners('close').includes(closed)) owner.on('close', closed)
  acts.set(owner, (acts.get(owner) ?? new Set()).add(act))
}

/** `act` is called when the owner is seen not to listen any more, and at its 'close' at the latest. */
export function onceListensNoMore(owner: EventEmitter, act: () => void): void {
  add(atEnd, owner, act)
}

/** `act` is called when the owner has closed, with all its connections, or listens again. */
export function onceClosed(owner: EventEmitter, act: () => void): void {
  add(atClose, owner, act)
}

/** Its listener is closed; it may have connections. */
export function listensNoMore(owner: EventEmitter): void {
  run(atEnd, owner)
}

/** It is about to listen: whatever it listened on is closed. */
export function listensAnew(owner: EventEmitter): void {
  over(owner)
}
