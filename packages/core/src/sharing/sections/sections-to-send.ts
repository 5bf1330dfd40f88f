/** The sections that a predecessor sends after its offer. */

import { reasonOf } from '../../errors.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { closeLater } from '../../platform/memory-file.js'
import type { Channel } from '../../protocol/channel.js'
import type { SavedSection } from './section-saver.js'

/** The shared state that goes along with the listeners. */
export interface SectionsToSend {
  readonly names: readonly string[]
  /**
   * The file of one section, which is closed when it has been sent. The successor hears what it throws, and decides whether to go on.
   * `v8`: of the successor, where it has said that.
   */
  save(name: string, signal: AbortSignal, v8?: string): Promise<SavedSection>
  /** The successor has read so much of it. */
  restoring?(name: string, bytes: number): void
}

/** One after the other, so that there is one copy more at a time. In the place of a section that fails the successor gets the reason. */
export async function sendSections(sections: SectionsToSend, channel: Channel, signal: AbortSignal, v8?: string): Promise<void> {
  const budget = new LoopBudget()
  for (const name of sections.names) {
    await budget.nextTurn()
    try {
      await sendSection(name, await sections.save(name, signal, v8), channel, signal)
    } catch (error) {
      if (signal.aborted) return
      channel.send({ type: 'unsaved', name, phase: 'offer', reason: reasonOf(error) })
    }
  }
}

/** Closes the file. */
export async function sendSection(name: string, { fd, bytes, phase }: SavedSection, channel: Channel, signal: AbortSignal): Promise<void> {
  try {
    await channel.sendWhenRoom({ type: 'section', name, phase, bytes }, [fd], signal)
  } finally {
    void closeLater(fd, bytes)
  }
}
