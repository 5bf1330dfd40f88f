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
import { isPromise, writeSection, writeSmallSection, type SectionInFile, type SmallSection, type WriteOptions } from './section-file.js'
import type { DeclaredSection, Sections } from './section-registry.js'

/** A section in a file, which the caller of `save` closes. */
export interface SavedSection extends SectionInFile {
  readonly phase: SectionPhase
}

/** What is known of the process that reads it: whether it takes the bytes of small sections together. */
export interface ReaderReads extends Pick<WriteOptions, 'plain'> {
  readonly together?: boolean
}

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

  /** Throws HANDOVER_STATE, whose text may call the section "it". Aborting `signal` gives it up. */
  async save(name: string, phase: SectionPhase, signal: AbortSignal, reads: { readonly plain?: boolean } = {}): Promise<SavedSection> {
    return { ...await this.#save(name, phase, signal, reads) as SectionInFile, phase }
  }

  /** The same for an offer. */
  async saveForOffer(name: string, signal: AbortSignal, reads: ReaderReads): Promise<SavedSection | SmallSection> {
    return { ...await this.#save(name, 'offer', signal, reads), phase: 'offer' }
  }

  async #save(name: string, phase: SectionPhase, signal: AbortSignal, reads: ReaderReads): Promise<SectionInFile | SmallSection> {
    const section = this.#sections.get(name)
    if (!section?.save) throw new HandoverError('HANDOVER_STATE', 'it is not shared any more')
    const shown = phase !== 'checkpoint'
    if (shown) this.note(name, 'saving', 0)
    const limit = new TimeLimit(section.timeoutMs, `save() took longer than its timeout, ${section.timeoutMs} ms`, signal)
    try {
      signal.throwIfAborted()
      const progress = (bytes: number): void => {
        if (shown) this.note(name, 'saving', bytes)
        // It goes on in later turns: from now on the time counts.
        if (bytes > smallBytes) limit.start()
      }
      const saved = await this.#write(section, phase, limit, { progress, plain: reads.plain ?? false }, reads)
      if (shown) this.note(name, 'saved', saved.bytes)
      return saved
    } catch (cause) {
      if (shown) this.note(name, 'failed', 0)
      // An error of the program: the reload fails with its message, and this log shows where it comes from.
      if (shown && cause !== limit.reason && !(cause instanceof HandoverError)) this.#warn(`save() of section "${name}" threw ${textOf(cause)}`)
      throw cause instanceof HandoverError ? cause : new HandoverError('HANDOVER_STATE', `it could not be saved: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    } finally {
      limit.end()
    }
  }

  async #write(
    section: DeclaredSection, phase: SectionPhase, limit: TimeLimit, options: Pick<WriteOptions, 'progress' | 'plain'>,
    { together = false }: ReaderReads
  ): Promise<SectionInFile | SmallSection> {
    const header = { name: section.name, schema: section.schema ?? null, phase, ...this.#author() }
    const writing = together ? writeSmallSection : writeSection
    const write = async (value: unknown): Promise<SectionInFile | SmallSection> =>
      await writing(header, value, { ...options, signal: limit, maxBytes: section.mostBytes })
    const answer = section.save?.({ phase, get signal() { return limit.signal } })
    const value = !isPromise(answer) ? answer : await before(limit, async () => {
      const saved = await answer
      // It comes too late. A stream must learn that, and does when it is written.
      if (limit.aborted) await write(saved)
      return saved
    })
    return await write(value)
  }
}
