import type { OfferedListener } from '../protocol/handover-messages.js'

/** A listener with a descriptor of it, which belongs to the one who is given it. */
export interface PassedListener {
  readonly about: OfferedListener
  readonly fd: number
}

export const passed = (listeners: readonly OfferedListener[], fds: readonly number[]): PassedListener[] => listeners.map((about, index) => ({ about, fd: fds[index]! }))
