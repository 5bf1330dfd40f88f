/** The sections that a predecessor sends after its offer. */

import { writeSync } from 'node:fs'
import { reasonOf } from '../../errors.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { closeLater, openMemoryFile, sealMemoryFile } from '../../platform/memory-file.js'
import type { Channel } from '../../protocol/channel.js'
import type { MessageOf } from '../../protocol/handover-messages.js'
import type { SmallSection } from './section-file.js'
import type { SavedSection } from './section-saver.js'

type Greeting = Pick<MessageOf<'hello'>, 'v8' | 'together'>

/** The shared state that goes along with the listeners. */
export interface SectionsToSend {
  readonly names: readonly string[]
  /**
   * The file of one section, which is closed when it has been sent. The successor hears what it throws, and decides whether to go on.
   * `hello`: what the successor has said of itself.
   */
  save(name: string, signal: AbortSignal, hello: Greeting): Promise<SavedSection | SmallSection>
  /** The successor has read so much of it. */
  restoring?(name: string, bytes: number): void
}

/** Of fewer each goes at once: where the program dies in the save of one, those before it have left. */
const fewSections = 32

/** One after the other, so that there is one copy more at a time. In the place of a section that fails the successor gets the reason. */
export async function sendSections(sections: SectionsToSend, channel: Channel, signal: AbortSignal, hello: Greeting): Promise<void> {
  const budget = new LoopBudget()
  const small = new SmallSections(channel, signal)
  for (const name of sections.names) {
    await budget.nextTurn()
    try {
      const saved = await sections.save(name, signal, hello)
      if ('content' in saved) {
        small.add(name, saved.content)
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

/** In one file: each costs system calls in both processes. */
const mostTogether = 250

/** Sends small sections in one file: when they are many, or when a turn of the event loop has added none. */
class SmallSections {
  readonly #channel: Channel
  readonly #signal: AbortSignal
  #added: { readonly name: string; readonly content: Buffer }[] = []

  constructor(channel: Channel, signal: AbortSignal) {
    this.#channel = channel
    this.#signal = signal
  }

  add(name: string, content: Buffer): void {
    this.#added.push({ name, content })
    if (this.#added.length === 1) this.#wait(1)
    else if (this.#added.length === mostTogether) void this.send()
  }

  #wait(known: number): void {
    setImmediate(() => {
      const { length } = this.#added
      if (length > known) this.#wait(length)
      else if (length > 0) void this.send()
    })
  }

  async send(): Promise<void> {
    const added = this.#added
    this.#added = []
    let fd
    try {
      fd = openMemoryFile('handover:sections')
      const whole = Buffer.concat(added.map(({ content }) => content))
      const written = writeSync(fd, whole, 0, whole.length, 0)
      if (written < whole.length) throw new Error(`only ${written} bytes of ${whole.length} can be written to the file`)
      sealMemoryFile(fd)
      const parts = added.map(({ name, content }) => ({ name, bytes: content.length }))
      await this.#channel.sendWhenRoom({ type: 'section', name: '', phase: 'offer', bytes: whole.length, parts }, [fd], this.#signal)
    } catch (error) {
      if (this.#signal.aborted) return
      for (const { name } of added) this.#channel.send({ type: 'unsaved', name, phase: 'offer', reason: reasonOf(error) })
    } finally {
      if (fd !== undefined) void closeLater(fd)
    }
  }
}
