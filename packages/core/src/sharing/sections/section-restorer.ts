/**
 * The successor's side of shared state: matches the sections that arrive with those that the program has declared, calls restore() with a
 * deadline, and says whether this process may serve.
 *
 * While the predecessor lives, a section that cannot be restored refuses the reload, unless it is optional. Where no other process would
 * serve (the predecessor is gone, or it is a checkpoint), the program goes on without it, with a warning.
 */

import { reasonOf, textOf, withoutStop } from '../../errors.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { closeLater, takeTextFile } from '../../platform/memory-file.js'
import type { SectionStatus } from '../../protocol/control-messages.js'
import type { MessageOf, SectionPhase } from '../../protocol/handover-messages.js'
import { listed, type StateReport } from '../../protocol/report.js'
import type { RestoreInfo } from '../sharing-api.js'
import { before, TimeLimit } from './abortable.js'
import { isPromise, readSection, type ReadSection, type SectionAbout } from './section-file.js'
import { readList, valueOf, type ListItem } from './section-list.js'
import type { DeclaredSection, Sections } from './section-registry.js'

const progressMs = 200
/** Characters. */
const mostReasons = 200_000

type Doing = 'awaited' | SectionStatus['doing'] | 'unclaimed'

/** A section that the offer names. */
class ExpectedSection {
  readonly name: string
  phase: SectionPhase = 'offer'
  doing: Doing = 'awaited'
  /** A descriptor, or its place in a list, while it is `saved`: then it waits for the program to declare it. */
  from: number | ListItem | undefined
  bytes = 0
  reason = ''
  /** As Date.now(). */
  savedAt = 0

  constructor(name: string) {
    this.name = name
  }
}

export class SectionRestorer {
  readonly #sections: Sections
  readonly #warn: (line: string) => void
  readonly #expected = new Map<string, ExpectedSection>()
  /** How many of them do what. */
  readonly #doing = new Map<Doing, number>()
  #wakes: (() => void)[] = []
  readonly #finals = new Set<Promise<void>>()
  #tellProgress = (_name: string, _bytes: number): void => undefined
  #alone = false
  #finished = false
  readonly #budget = new LoopBudget()
  /** Declared, and not begun. */
  #next: (readonly [DeclaredSection, ExpectedSection])[] = []
  #works = false

  constructor(sections: Sections, warn: (line: string) => void) {
    this.#sections = sections
    this.#warn = warn
  }

  /** `names`: those in the offer. `progress` is called now and then with the bytes of a section that were read. */
  expect(names: readonly string[], progress: (name: string, bytes: number) => void): void {
    this.#tellProgress = progress
    for (const name of names) this.#expected.set(name, new ExpectedSection(name))
    this.#doing.set('awaited', this.#expected.size)
  }

  #now(expected: ExpectedSection, doing: Doing): void {
    this.#doing.set(expected.doing, this.#doing.get(expected.doing)! - 1)
    this.#doing.set(doing, (this.#doing.get(doing) ?? 0) + 1)
    expected.doing = doing
    for (const wake of this.#wakes.splice(0)) wake()
  }

  #failed(expected: ExpectedSection, reason: string): void {
    expected.reason = reason
    this.#now(expected, 'failed')
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => { this.#wakes.push(resolve) })
  }

  /** Resolves when none does any of that. */
  async #none(...doing: readonly Doing[]): Promise<void> {
    while (doing.some((each) => (this.#doing.get(each) ?? 0) > 0)) await this.#changed()
  }

  /** Owns the descriptor of the file; undefined where that did not arrive. */
  arrived({ name, phase, bytes, listed: parts }: MessageOf<'section'>, fd: number | undefined): void {
    if (parts) this.#listArrived(parts, fd)
    else if (phase === 'final') this.#final(name, fd)
    else this.#arrived(name, phase, bytes, fd)
  }

  #listArrived(parts: readonly { readonly name: string; readonly bytes: number }[], fd: number | undefined): void {
    let items: ListItem[] | undefined
    let reason = 'the file that it is in did not arrive: raise the limit of open files (ulimit -n)'
    try {
      if (fd !== undefined) items = readList(takeTextFile(fd), parts.map(({ name }) => name))
    } catch (error) {
      reason = `the file that it is in cannot be read: ${reasonOf(error)}`
    }
    parts.forEach(({ name, bytes }, index) => {
      if (items) this.#arrived(name, 'offer', bytes, items[index])
      else this.unsaved({ type: 'unsaved', name, phase: 'offer', reason })
    })
  }

  #arrived(name: string, phase: SectionPhase, bytes: number, from: number | ListItem | undefined): void {
    const expected = this.#expected.get(name)
    if (expected?.doing !== 'awaited' || this.#finished) {
      letGo(from)
      return
    }
    expected.phase = phase
    expected.bytes = bytes
    if (from === undefined) {
      this.#failed(expected, 'its descriptor did not arrive: raise the limit of open files (ulimit -n)')
      return
    }
    expected.from = from
    this.#now(expected, 'saved')
    this.declared(name)
  }

  unsaved({ name, phase, reason }: MessageOf<'unsaved'>): void {
    const expected = this.#expected.get(name)
    if (phase === 'final') this.#finalLost(name, reason)
    else if (expected?.doing === 'awaited') this.#failed(expected, reason)
  }

  /** The offer is a keeper's, or this process's own: no other process would serve. */
  nobodyElseServes(): void {
    this.#alone = true
  }

  /** Nothing more will come. */
  predecessorGone(): void {
    this.#alone = true
    for (const expected of this.#expected.values()) {
      if (expected.doing === 'awaited') this.#failed(expected, 'the predecessor ended before it was sent')
    }
  }

  /** The program has declared it: from now on it can be restored. */
  declared(name: string): void {
    const expected = this.#expected.get(name)
    const section = this.#sections.get(name)
    if (expected?.doing !== 'saved' || !section?.restore) return
    this.#now(expected, 'restoring')
    this.#next.push([section, expected])
    if (this.#works) return
    this.#works = true
    // Not within share().
    queueMicrotask(() => { void this.#work() })
  }

  /** Begins one after the other: a thousand of them in one turn would hold up those that this process serves. */
  async #work(): Promise<void> {
    // More may be added meanwhile.
    for (const [section, expected] of this.#next) {
      const turn = this.#budget.nextTurn()
      if (turn) await turn
      this.#begin(section, expected)
    }
    this.#next = []
    this.#works = false
  }

  #begin(section: DeclaredSection, expected: ExpectedSection): void {
    const { from, phase } = expected
    expected.from = undefined
    const failed = (error: unknown): void => { this.#failed(expected, reasonOf(error)) }
    try {
      const later = typeof from === 'number'
        ? this.#restoreFile(section, from, phase, expected)
        : this.#restoreItem(section, from!, expected)
      if (later) later.then(() => { this.#now(expected, 'restored') }, failed)
      else this.#now(expected, 'restored')
    } catch (error) {
      failed(error)
    }
  }

  /** The program has declared all that it will. Resolves when all is restored; with a reason where this process must not serve. */
  async finish(): Promise<string | undefined> {
    const all = [...this.#expected.values()]
    await this.#none('awaited')
    this.#finished = true
    for (const expected of all) {
      if (expected.doing !== 'saved') continue
      letGo(expected.from)
      expected.from = undefined
      this.#now(expected, 'unclaimed')
    }
    await this.#none('restoring')
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
    await this.#none('awaited', 'saved', 'restoring')
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

  #final(name: string, file: number | undefined): void {
    const section = this.#sections.get(name)
    // restore() of a section that is not final here would replace what this process has done since.
    const takes = section && (section.merge ?? (section.final ? section.restore : undefined))
    if (file === undefined || !takes) {
      letGo(file)
      const why = file === undefined ? 'its descriptor did not arrive' : `this program ${section ? 'has neither merge nor a final restore there' : 'does not share it'}`
      this.#finalLost(name, why)
      return
    }
    const done = this.#restoreFinal(section, file)
      .catch((error: unknown) => { this.#finalLost(name, reasonOf(error)) })
      .then(() => { this.#finals.delete(done) })
    this.#finals.add(done)
  }

  async #restoreFinal(section: DeclaredSection, fd: number): Promise<void> {
    while (this.#expected.get(section.name)?.doing === 'restoring') await this.#changed()
    await this.#budget.nextTurn()
    await this.#restoreFile(section, fd, 'final')
  }

  #finalLost(name: string, reason: string): void {
    this.#warn(`what the predecessor added to section "${name}" at last is lost: ${reason}`)
  }

  #limitOf({ timeoutMs }: DeclaredSection): TimeLimit {
    return new TimeLimit(timeoutMs, `restore() took longer than its timeout, ${timeoutMs} ms`)
  }

  /** Owns the file. */
  async #restoreFile(section: DeclaredSection, fd: number, phase: SectionPhase, expected?: ExpectedSection): Promise<void> {
    const limit = this.#limitOf(section)
    let told = performance.now()
    let file: ReadSection | undefined
    try {
      file = await readSection(fd, {
        signal: limit,
        progress: (bytes) => {
          if (expected) expected.bytes = bytes
          if (performance.now() - told < progressMs) return
          told = performance.now()
          this.#tellProgress(section.name, bytes)
        }
      })
      await this.#give(section, file.header, file.value, phase, limit, expected)
    } finally {
      limit.end()
      file?.close()
    }
  }

  #restoreItem(section: DeclaredSection, item: ListItem, expected: ExpectedSection): Promise<void> | undefined {
    const limit = this.#limitOf(section)
    let later
    try {
      later = this.#give(section, item.header, valueOf(item), 'offer', limit, expected)
      return later?.finally(() => { limit.end() })
    } finally {
      if (!later) limit.end()
    }
  }

  /** Calls restore(), or merge(). Undefined where that is done at once. */
  #give(
    section: DeclaredSection, header: SectionAbout, value: unknown, phase: SectionPhase, limit: TimeLimit, expected?: ExpectedSection
  ): Promise<void> | undefined {
    mustKnow(section, header)
    const { version, schema, generation, node, savedAt } = header
    if (expected) expected.savedAt = savedAt
    const info: RestoreInfo = {
      phase, version, schema, generation, node, savedAt: new Date(savedAt), get signal() { return limit.signal }
    }
    const take = phase === 'final' && section.merge ? 'merge' : 'restore'
    const threw = (error: unknown): never => {
      // An error of the program: the reload fails with its message, and this log shows where it comes from.
      if (error !== limit.reason) this.#warn(`${take}() of section "${section.name}" threw ${textOf(error)}`)
      throw error
    }
    try {
      const done = section[take]?.(value, info)
      return isPromise(done) ? before(limit, async () => { await done }).catch(threw) : undefined
    } catch (error) {
      return threw(error)
    }
  }
}

function letGo(from: number | ListItem | undefined): void {
  if (typeof from === 'number') void closeLater(from)
}

/** Throws where the section is of a form that the program does not read. */
function mustKnow({ name, schema = 0, accepts = [] }: DeclaredSection, header: SectionAbout): void {
  if (name !== header.name) throw new Error(`the file holds section "${header.name}"`)
  const found = header.schema ?? 0
  if (found === schema || accepts.includes(found)) return
  const known = [...new Set([schema, ...accepts])].sort((a, b) => a - b)
  throw new Error(`it has ${header.schema === null ? 'no schema (0)' : `schema ${found}`}, and this program reads ${known.join(', ')}. Name it in accepts, where restore can read it`)
}
