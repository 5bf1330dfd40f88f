/**
 * The successor's side of shared state: matches the sections that arrive with those that the program has declared, calls restore() with a
 * deadline, and says whether this process may serve.
 *
 * While the predecessor lives, a section that cannot be restored refuses the reload, unless it is optional. Where no other process would
 * serve (the predecessor is gone, or it is a checkpoint), the program goes on without it, with a warning.
 */

import { reasonOf, textOf, withoutStop } from '../../errors.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { closeLater, readWholeFile } from '../../platform/memory-file.js'
import type { SectionStatus } from '../../protocol/control-messages.js'
import type { MessageOf, SectionPhase } from '../../protocol/handover-messages.js'
import { listed, type StateReport } from '../../protocol/report.js'
import type { RestoreInfo } from '../sharing-api.js'
import { before, TimeLimit } from './abortable.js'
import { isPromise, readSection, type ReadSection, type SectionHeader } from './section-file.js'
import type { DeclaredSection, Sections } from './section-registry.js'

const progressMs = 200
/** Characters. */
const mostReasons = 200_000

/** A section that the offer names. */
class ExpectedSection {
  readonly name: string
  phase: SectionPhase = 'offer'
  doing: 'awaited' | SectionStatus['doing'] | 'unclaimed' = 'awaited'
  /** A descriptor, or its bytes, while it is `saved`: then it waits for the program to declare it. */
  file: number | Buffer | undefined
  bytes = 0
  reason = ''
  /** As Date.now(). */
  savedAt = Date.now()
  arrive = (): void => undefined
  /** Resolves when it has come, or never will. */
  readonly arrived = new Promise<void>((resolve) => { this.arrive = resolve })
  end = (): void => undefined
  /** Resolves when it is restored, or cannot be. */
  readonly over = new Promise<void>((resolve) => { this.end = resolve })

  constructor(name: string) {
    this.name = name
  }

  failed(reason: string): void {
    this.doing = 'failed'
    this.reason = reason
    this.arrive()
    this.end()
  }
}

export class SectionRestorer {
  readonly #sections: Sections
  readonly #warn: (line: string) => void
  readonly #expected = new Map<string, ExpectedSection>()
  readonly #finals = new Set<Promise<void>>()
  #tellProgress = (_name: string, _bytes: number): void => undefined
  #alone = false
  #finished = false
  readonly #budget = new LoopBudget()
  #turn: Promise<void> | undefined

  constructor(sections: Sections, warn: (line: string) => void) {
    this.#sections = sections
    this.#warn = warn
  }

  /** `names`: those in the offer. `progress` is called now and then with the bytes of a section that were read. */
  expect(names: readonly string[], progress: (name: string, bytes: number) => void): void {
    this.#tellProgress = progress
    for (const name of names) this.#expected.set(name, new ExpectedSection(name))
  }

  /** Owns the descriptor of the file; undefined where that did not arrive. */
  arrived({ name, phase, bytes, parts }: MessageOf<'section'>, fd: number | undefined): void {
    if (parts) this.#arrivedTogether(parts, phase, fd)
    else this.#arrived(name, phase, bytes, fd)
  }

  #arrivedTogether(parts: readonly { readonly name: string; readonly bytes: number }[], phase: SectionPhase, fd: number | undefined): void {
    let whole
    let reason = 'the file that it is in did not arrive: raise the limit of open files (ulimit -n)'
    try {
      if (fd !== undefined) whole = readWholeFile(fd)
    } catch (error) {
      reason = `the file that it is in cannot be read: ${reasonOf(error)}`
    } finally {
      if (fd !== undefined) void closeLater(fd)
    }
    let at = 0
    for (const { name, bytes } of parts) {
      if (whole) this.#arrived(name, phase, bytes, whole.subarray(at, at + bytes))
      else this.unsaved({ type: 'unsaved', name, phase, reason })
      at += bytes
    }
  }

  #arrived(name: string, phase: SectionPhase, bytes: number, file: number | Buffer | undefined): void {
    if (phase === 'final') {
      this.#final(name, file)
      return
    }
    const expected = this.#expected.get(name)
    if (expected?.doing !== 'awaited' || this.#finished) {
      letGo(file)
      return
    }
    Object.assign(expected, { phase, bytes })
    if (file === undefined) {
      expected.failed('its descriptor did not arrive: raise the limit of open files (ulimit -n)')
      return
    }
    Object.assign(expected, { file, doing: 'saved' })
    this.declared(name)
    expected.arrive()
  }

  unsaved({ name, phase, reason }: MessageOf<'unsaved'>): void {
    const expected = this.#expected.get(name)
    if (phase === 'final') this.#finalLost(name, reason)
    else if (expected?.doing === 'awaited') expected.failed(reason)
  }

  /** The offer is a keeper's, or this process's own: no other process would serve. */
  nobodyElseServes(): void {
    this.#alone = true
  }

  /** Nothing more will come. */
  predecessorGone(): void {
    this.#alone = true
    for (const expected of this.#expected.values()) {
      if (expected.doing === 'awaited') expected.failed('the predecessor ended before it was sent')
    }
  }

  /** The program has declared it: from now on it can be restored. */
  declared(name: string): void {
    const expected = this.#expected.get(name)
    const section = this.#sections.get(name)
    if (expected?.doing !== 'saved' || !section?.restore) return
    expected.doing = 'restoring'
    this.#restore(section, expected.file!, expected.phase, expected).then(
      () => {
        expected.doing = 'restored'
        expected.end()
      },
      (error: unknown) => { expected.failed(reasonOf(error)) }
    )
  }

  /** The program has declared all that it will. Resolves when all is restored; with a reason where this process must not serve. */
  async finish(): Promise<string | undefined> {
    const all = [...this.#expected.values()]
    await Promise.all(all.map(({ arrived }) => arrived))
    this.#finished = true
    for (const expected of all) {
      if (expected.doing !== 'saved') continue
      letGo(expected.file)
      expected.doing = 'unclaimed'
    }
    await Promise.all(all.filter(({ doing }) => doing === 'restoring').map(({ over }) => over))
    for (const { name, phase, reason } of all.filter(({ doing }) => doing === 'failed')) {
      const section = this.#sections.get(name)
      // No part of this program wants it.
      if (!section?.restore) continue
      if (!section.optional && !this.#alone && phase !== 'checkpoint') return `section "${name}" cannot be restored: ${reason}`
      this.#warn(`section "${name}" is not restored: ${withoutStop(reason)}. This process goes on without it.`)
    }
    const checkpoints = all.filter(({ phase, doing }) => phase === 'checkpoint' && doing === 'restored')
    const shown = checkpoints.map(({ name, savedAt }) => `${name} (${Math.round((Date.now() - savedAt) / 1_000)} s old)`)
    if (shown.length > 0) this.#warn(`this process goes on from checkpoints: ${listed(shown)}. What changed since is lost.`)
    return undefined
  }

  /** Resolves when no final section is in hand. */
  async idle(): Promise<void> {
    while (this.#finals.size > 0) await Promise.all(this.#finals)
  }

  /** Resolves when each section of the offer is restored or cannot be, however late the program declares it. */
  async allRestored(): Promise<void> {
    await Promise.all([...this.#expected.values()].map(({ over }) => over))
  }

  /** share() comes too late for it. */
  isTooLateFor(name: string): boolean {
    return this.#finished && this.#expected.has(name)
  }

  /** Nothing was offered: then there is nothing to wait for. */
  get isEmpty(): boolean {
    return this.#expected.size === 0
  }

  get report(): StateReport {
    const all = [...this.#expected.values()]
    // All of them are one message.
    const most = Math.max(50, Math.floor(mostReasons / Math.max(1, all.filter(({ doing }) => doing === 'failed').length)))
    const wanted = (name: string): boolean => this.#sections.get(name)?.restore !== undefined
    return {
      restored: all.filter(({ doing }) => doing === 'restored').map(({ name }) => name),
      unclaimed: all.filter(({ doing, name }) => doing === 'unclaimed' || (doing === 'failed' && !wanted(name))).map(({ name }) => name),
      failed: all.filter(({ doing, name }) => doing === 'failed' && wanted(name))
        .map(({ name, reason }) => ({ name, reason: reason.length > most ? `${reason.slice(0, most)} …` : reason }))
    }
  }

  get progress(): SectionStatus[] {
    return [...this.#expected.values()].flatMap(
      ({ name, doing, bytes }) => (doing === 'awaited' || doing === 'unclaimed' ? [] : [{ name, doing, bytes }])
    )
  }

  #final(name: string, file: number | Buffer | undefined): void {
    const section = this.#sections.get(name)
    // restore() of a section that is not final here would replace what this process has done since.
    const takes = section && (section.merge ?? (section.final ? section.restore : undefined))
    if (file === undefined || !takes) {
      letGo(file)
      const why = file === undefined ? 'its descriptor did not arrive' : `this program ${section ? 'has neither merge nor a final restore there' : 'does not share it'}`
      this.#finalLost(name, why)
      return
    }
    const expected = this.#expected.get(name)
    const done = (expected?.doing === 'restoring' ? expected.over : Promise.resolve())
      .then(async () => { await this.#restore(section, file, 'final') })
      .catch((error: unknown) => { this.#finalLost(name, reasonOf(error)) })
      .then(() => { this.#finals.delete(done) })
    this.#finals.add(done)
  }

  #finalLost(name: string, reason: string): void {
    this.#warn(`what the predecessor added to section "${name}" at last is lost: ${reason}`)
  }

  /** Owns the file. */
  async #restore(section: DeclaredSection, from: number | Buffer, phase: SectionPhase, expected?: ExpectedSection): Promise<void> {
    // Small files are read at once: a thousand of them in one turn would hold up those that this process serves.
    await (this.#turn = Promise.resolve(this.#turn).then(() => this.#budget.nextTurn()))
    const limit = new TimeLimit(section.timeoutMs, `restore() took longer than its timeout, ${section.timeoutMs} ms`)
    let told = performance.now()
    let file: ReadSection | undefined
    try {
      file = await readSection(from, {
        signal: limit,
        progress: (bytes) => {
          if (expected) expected.bytes = bytes
          if (performance.now() - told < progressMs) return
          told = performance.now()
          this.#tellProgress(section.name, bytes)
        }
      })
      mustKnow(section, file.header)
      const { version, schema, generation, node, savedAt } = file.header
      if (expected) expected.savedAt = savedAt
      const info: RestoreInfo = {
        phase, version, schema, generation, node, savedAt: new Date(savedAt), get signal() { return limit.signal }
      }
      const take = phase === 'final' && section.merge ? 'merge' : 'restore'
      const { value } = file
      try {
        const done = section[take]?.(value, info)
        if (isPromise(done)) await before(limit, async () => { await done })
      } catch (error) {
        // An error of the program: the reload fails with its message, and this log shows where it comes from.
        if (error !== limit.reason) this.#warn(`${take}() of section "${section.name}" threw ${textOf(error)}`)
        throw error
      }
    } finally {
      limit.end()
      file?.close()
    }
  }
}

function letGo(file: number | Buffer | undefined): void {
  if (typeof file === 'number') void closeLater(file)
}

/** Throws where the section is of a form that the program does not read. */
function mustKnow(section: DeclaredSection, { name, schema }: SectionHeader): void {
  if (name !== section.name) throw new Error(`the file holds section "${name}"`)
  const known = [...new Set([section.schema ?? 0, ...(section.accepts ?? [])])].sort((a, b) => a - b)
  if (known.includes(schema ?? 0)) return
  throw new Error(`it has ${schema === null ? 'no schema (0)' : `schema ${schema}`}, and this program reads ${known.join(', ')}. Name it in accepts, where restore can read it`)
}
