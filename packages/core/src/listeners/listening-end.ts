/**
 * When a server listens no more: it emits 'close', or it listens again before that event. `server.close(); server.listen(port)` comes
 * first, and where the server has connections, Node emits no 'close' at all.
 */

import type { EventEmitter } from 'node:events'

const acts = new WeakMap<EventEmitter, Set<() => void>>()

function end(this: EventEmitter): void {
  const waiting = acts.get(this)
  acts.delete(this)
  this.off('close', end)
  for (const act of waiting ?? []) act()
}

export function onceClosed(owner: EventEmitter, act: () => void): void {
  const waiting = acts.get(owner) ?? new Set()
  if (waiting.size === 0) owner.on('close', end)
  acts.set(owner, waiting.add(act))
}

/** It is about to listen: whatever it listened on is closed. */
export function listensAnew(owner: EventEmitter): void {
  end.call(owner)
}
