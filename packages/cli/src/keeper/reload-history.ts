/**
 * The last reloads in short, for pictures: who handed over to whom and when, and what became of connections, also after the reload was
 * over.
 */

import type { HandoverRecord, ReloadOutcome, ReloadRecord, Report } from '@handover/core/internal'

const mostReloads = 10
/** Of one reload. */
const mostHandovers = 64

type Writable<Record> = { -readonly [Field in keyof Record]: Record[Field] }

export class ReloadHistory {
  /** Oldest first. */
  readonly records: ReloadRecord[]
  /** Of the reload that runs. */
  #handovers: Writable<HandoverRecord>[] = []

  /** `before`: of the keeper before this one. */
  constructor(before: readonly ReloadRecord[] = []) {
    this.records = [...before]
  }

  begins(): void {
    this.#handovers = []
  }

  heard(report: Report, slot: number): void {
    const { result, predecessor: from, successor: to, durations, connections, requestsCut, requestsCutBeside = 0 } = report
    const at = Date.now()
    if (result === 'switched') {
      if (this.#handovers.length < mostHandovers) this.#handovers.push({ slot, from, to, at, durations })
      return
    }
    // A process that was undone may hand over again.
    const all: Writable<HandoverRecord>[] = [...this.records.flatMap(({ handovers }) => handovers), ...this.#handovers]
    const known = all.findLast(({ from: { pid }, endedAt, undoneAt }) => pid === from.pid && (endedAt ?? undoneAt) === undefined)
    if (!known) return
    if (result === 'undone') known.undoneAt = at
    else {
      const { moved, drained, closedIdle, cut } = connections
      const became = { connections: { moved, drained, closedIdle, cut }, requestsCut: requestsCut.length + requestsCutBeside }
      Object.assign(known, { endedAt: at, durations, ...became })
    }
  }

  ended({ at, ms, error }: ReloadOutcome): void {
    this.records.push({ at, ms, ...(error && { code: error.code }), handovers: this.#handovers })
    this.records.splice(0, this.records.length - mostReloads)
    this.begins()
  }
}
