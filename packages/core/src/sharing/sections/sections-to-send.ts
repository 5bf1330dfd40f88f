/** The sections that a predecessor sends after its offer. */

import { reasonOf } from '../../errors.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { closeLater, sealedFile, smallBytes } from '../../platform/memory-file.js'
import type { Channel } from '../../protocol/channel.js'
import { isPromise } from './section-file.js'
import { listOf, type ListedSection } from './section-list.js'
import type { Saved, SavedSection } from './section-saver.js'

/** The shared state that goes along with the listeners. */
export interface SectionsToSend {
  readonly names: readonly string[]
  /**
   * One section: in a file, which is closed when it has been sent, or for a list. The successor hears what it throws, and decides whether
   * to go on. `v8`: the version of V8 in the successor.
   */
  save(name: string, signal: AbortSignal, v8: string | undefined): Saved | Promise<Saved>
  /** The successor has read so much of it. */
  restoring?(name: string, bytes: number): void
}

/** Of fewer each goes at once: where the program dies in the save of one, those before it have left. */
const fewSections = 32
/** In one file: so that the successor restores them while the next are saved. */
const mostTogether = 250

/** One after the other, so that there is one copy more at a time. In the place of a section that fails the successor gets the reason. */
export async function sendSections(sections: SectionsToSend, channel: Channel, signal: AbortSignal, v8: string | undefined): Promise<void> {
  const budget = new LoopBudget()
  const small = new SmallSections(channel, signal)
  for (const name of sections.names) {
    const turn = budget.nextTurn()
    if (turn) await turn
    try {
      const answer = sections.save(name, signal, v8)
      const saved = isPromise(answer) ? await answer : answer
      if ('entry' in saved) {
        small.add(name, saved)
        if (sections.names.length < fewSections) await small.send()
      } else await sendSection(name, saved, channel, signal)
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

/** Sends small sections as lists: those of a turn of the event loop together, or when they are many. */
class SmallSections {
  readonly #channel: Channel
  readonly #signal: AbortSignal
  #added: (ListedSection & { readonly name: string })[] = []

  constructor(channel: Channel, signal: AbortSignal) {
    this.#channel = channel
    this.#signal = signal
  }

  add(name: string, { entry, by }: ListedSection): void {
    const length = this.#added.push({ name, entry, by })
    if (length === 1) setImmediate(() => { void this.send() })
    else if (length === mostTogether) void this.send()
  }

  async send(): Promise<void> {
    const added = this.#added.splice(0)
    if (!added[0]) return
    let fd
    try {
      const bytes = Buffer.from(listOf(added[0].by, added.map(({ entry }) => entry)))
      fd = sealedFile(bytes)
      const listed = added.map(({ name, entry }) => ({ name, bytes: entry.length }))
      await this.#channel.sendWhenRoom({ type: 'section', name: '', phase: 'offer', bytes: bytes.length, listed }, [fd], this.#signal)
    } catch (error) {
      if (this.#signal.aborted) return
      for (const { name } of added) this.#channel.send({ type: 'unsaved', name, phase: 'offer', reason: reasonOf(error) })
    } finally {
      if (fd !== undefined) void closeLater(fd, smallBytes)
    }
  }
}
