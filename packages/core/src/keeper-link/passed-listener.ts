/** A listener on its way between a keeper and its worker: what it is, and its descriptor, which the receiver closes. */

import type { OfferedListener } from '../protocol/handover-messages.js'

export interface PassedListener {
  readonly about: OfferedListener
  readonly fd: number
}

/** The descriptors are in the order of the listeners. */
export const passed = (listeners: readonly OfferedListener[], fds: readonly number[]): PassedListener[] =>
  listeners.map((about, index) => ({ about, fd: fds[index]! }))
