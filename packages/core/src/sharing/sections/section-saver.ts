/**
 * The predecessor's side of shared state: calls save(), with a deadline, and writes the result into a file whose descriptor can be sent.
 *
 * A section that cannot be saved is announced as such. The successor decides what follows, since the newer code knows whether it can do
 * without.
 */

import { HandoverError, textOf } from '../../errors.js'
import { smallBytes } from '../../platform/memory-file.js'
import type { SectionStatus } from '../../protocol/control-messages.js'
import type { SectionPhase } from '../../protocol/handover-messages.js'
import { before, TimeLimit } from './abortable.js'
import { isPromise, writeSection, type EncodedValue, type HeaderToWrite, type SectionInFile } from './section-file.js'
import { asListed, leastLimit, type ListedSection } from './section-list.js'
import type { DeclaredSection, Sections } from './section-registry.js'

/** A section in a file, which the caller of `save` closes. */
export interface SavedSection extends SectionInFile {
  readonly phase: SectionPhase
}

export type Saved = SavedSection | ListedSection

/** The program that saves. */
export interface Author {
  readonly version: string | null
  readonly generation: number
}

export class SectionSaver {
  readonly #sections: Sections
  readonly #author: () => Author
  readonly #warn: (line: string) => void
  /** Of the transfer that runs, or ran last. */
  readonly #progress = new Map<string, SectionStatus>()

  constructor(sections: Sections, author: () => Author, warn: (line: string) => void) {
    this.#sections = sections
    this.#author = author
    this.#warn = warn
  }

  get progress(): SectionStatus[] {
    return [...this.#progress.values()]
  }

  note(name: string, doing: SectionStatus['doing'], bytes: number): void {
    this.#progress.set(name, { name, doing, bytes })
  }

  forget(): void {
    this.#progress.clear()
  }

  /** Throws HANDOVER_STATE, whose text may call the section "it". `signal` gives it up. `plain`: its reader knows plain-value.ts. */
  async save(name: string, phase: 'final' | 'checkpoint', signal: AbortSignal, plain = false): Promise<SavedSection> {
    return await this.#save(name, phase, signal, plain) as SavedSection
  }

  /** The same for an offer. At once where save() does not wait and the section goes into a list: there may be a thousand of them. */
  saveForOffer(name: string, signal: AbortSignal, plain: boolean): Saved | Promise<Saved> {
    return this.#save(name, 'offer', signal, plain)
  }

  #save(name: string, phase: SectionPhase, signal: AbortSignal, plain: boolean): Saved | Promise<Saved> {
    const section = this.#sections.get(name)
    if (!section?.save) throw new HandoverError('HANDOVER_STATE', 'it is not shared any more')
    const limit = new TimeLimit(section.timeoutMs, `save() took longer than its timeout, ${section.timeoutMs} ms`, signal)
    try {
      signal.throwIfAborted()
      const answer = section.save({ phase, get signal() { return limit.signal } })
      const small = isPromise(answer) ? undefined : this.#listed(section, phase, answer, plain)
      if (!small || !('entry' in small)) return this.#write(section, phase, answer, limit, plain, small)
      limit.end()
      return small
    } catch (cause) {
      limit.end()
      throw this.#failure(name, phase, limit, cause)
    }
  }

  /** Ends the limit. `encoded`: what it answers, where that is known. */
  async #write(
    section: DeclaredSection, phase: SectionPhase, answer: unknown, limit: TimeLimit, plain: boolean, encoded?: EncodedValue
  ): Promise<Saved> {
    const { name } = section
    const shown = phase !== 'checkpoint'
    if (shown) this.note(name, 'saving', 0)
    const progress = (bytes: number): void => {
      if (shown) this.note(name, 'saving', bytes)
      // It goes on in later turns: from now on the time counts.
      if (bytes > smallBytes) limit.start()
    }
    const write = (value: unknown, known?: EncodedValue): Promise<SectionInFile> => writeSection(this.#header(section, phase), value, {
      progress, plain, encoded: known, signal: limit, maxBytes: section.mostBytes
    })
    try {
      const value = !isPromise(answer) ? answer : await before(limit, async () => {
        const saved = await answer
        // It comes too late. A stream must learn that, and does when it is written.
        if (limit.aborted) await write(saved)
        return saved
      })
      const small = isPromise(answer) ? this.#listed(section, phase, value, plain) : encoded
      if (small && 'entry' in small) return small
      const saved = await write(value, small)
      if (shown) this.note(name, 'saved', saved.bytes)
      return { ...saved, phase }
    } catch (cause) {
      throw this.#failure(name, phase, limit, cause)
    } finally {
      limit.end()
    }
  }

  #listed(section: DeclaredSection, phase: SectionPhase, value: unknown, plain: boolean): ListedSection | EncodedValue | undefined {
    if (phase !== 'offer' || section.mostBytes < leastLimit) return undefined
    const small = asListed(this.#header(section, phase), value, plain)
    if (small && 'entry' in small) this.note(section.name, 'saved', small.entry.length)
    return small
  }

  #header({ name, schema }: DeclaredSection, phase: SectionPhase): HeaderToWrite {
    return { name, schema: schema ?? null, phase, ...this.#author() }
  }

  #failure(name: string, phase: SectionPhase, limit: TimeLimit, cause: unknown): HandoverError {
    const shown = phase !== 'checkpoint'
    if (shown) this.note(name, 'failed', 0)
    // An error of the program: the reload fails with its message, and this log shows where it comes from.
    if (shown && cause !== limit.reason && !(cause instanceof HandoverError)) this.#warn(`save() of section "${name}" threw ${textOf(cause)}`)
    return cause instanceof HandoverError ? cause : new HandoverError('HANDOVER_STATE', `it could not be saved: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}
