/** The sections that a predecessor sends with its offer, as the handover sees them. */

import type { SectionPhase } from '../../protocol/handover-messages.js'

/** The shared state that goes along with the listeners. */
export interface SectionsToSend {
  readonly names: readonly string[]
  /** The file of one; it is closed when it has been sent. Throws what the successor is told: it decides whether it can do without. */
  save(name: string, signal: AbortSignal): Promise<{ readonly fd: number; readonly bytes: number; readonly phase: SectionPhase }>
  /** The successor has read so much of it. */
  restoring?(name: string, bytes: number): void
}
