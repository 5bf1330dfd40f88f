/**
 * What this process knows and passes on: sections, messages to its neighbours, sums over processes, the age of the service.
 *
 * It brings the parts together. The generation reports to it what happens, and calls it at the steps of a handover.
 */

import { optionError, reasonOf } from '../errors.js'
import { uniqueWord } from '../platform/on-demand.js'
import type { Channel } from '../protocol/channel.js'
import type { SectionStatus, ServiceCount } from '../protocol/control-messages.js'
import type { Peer } from '../protocol/handover-messages.js'
import type { CountedBy } from '../protocol/keeper-messages.js'
import { listed, type StateReport } from '../protocol/report.js'
import { ProcessExchange, readTold, withFile, type CountGatherer, type ExchangeSide } from './aggregates/aggregate-exchange.js'
import { Aggregates, type Aggregate, type AggregateOptions } from './aggregates/aggregate.js'
import { PeerMessages } from './peer-messages.js'
import { CheckpointTimer, type CheckpointKeeper } from './sections/checkpoint-timer.js'
import { readsPlain } from './sections/plain-value.js'
import { Sections } from './sections/section-registry.js'
import { SectionRestorer } from './sections/section-restorer.js'
import { SectionSaver, type Author } from './sections/section-saver.js'
import { sendSection, type SectionsToSend } from './sections/sections-to-send.js'
import { forgetCheckpoint } from './sections/systemd-store.js'
import { serviceTopic, type ServiceCounts } from './service-topic.js'
import type { Neighbour, Section, Service } from './sharing-api.js'

/** Of this process, unique over all generations: pids come again. */
const id = `${process.pid}-${uniqueWord()}`

/** Counts of other processes may be this old in a total that is shown at once. */
const freshMs = 1_000

export interface SharedStateSide extends ExchangeSide {
  author(): Author
  kept(): (CountGatherer & CheckpointKeeper) | undefined
  /** Begun in this process since it started. */
  requests(): number
  /** Everything is off. A program that is tested so may declare the same for each app that it makes. */
  readonly isOff: boolean
}

export class SharedState {
  readonly #side: SharedStateSide
  readonly #sections: Sections
  readonly #saving: SectionSaver
  readonly #checkpointing: CheckpointTimer
  /** What the predecessor saved; empty where nothing was offered. */
  readonly restoring: SectionRestorer
  readonly peers: PeerMessages
  readonly #exchange: ProcessExchange
  readonly #requests: Aggregate<ServiceCounts>
  #isServing = false
  /** The successor was to begin without what this process knows. */
  #successorIsFresh = false
  #successorReadsPlain = false
  #startedAt: number | undefined
  #known: { readonly requests: number; readonly at: number; readonly ownThen: number } | undefined
  #looking = false

  constructor(side: SharedStateSide) {
    const warn = (line: string): void => { side.warn(line) }
    this.#side = side
    this.#sections = new Sections(({ name }) => {
      this.restoring.declared(name)
      if (this.#isServing) this.#checkpointing.start()
    }, side.isOff)
    this.#saving = new SectionSaver(this.#sections, () => side.author(), warn)
    this.restoring = new SectionRestorer(this.#sections, warn)
    this.peers = new PeerMessages(warn)
    this.#exchange = new ProcessExchange(id, this.peers, side)
    this.#requests = this.#exchange.aggregates.aggregate<ServiceCounts>(serviceTopic, {
      own: () => ({ requests: side.requests() }),
      add: (a, b) => ({ requests: a.requests + b.requests })
    })
    this.#checkpointing = new CheckpointTimer(this.#sections, this.#saving, () => side.kept(), warn)
  }

  // ---- what programs call ----

  /** Throws HANDOVER_OPTION. */
  share(name: string, section: Section): void {
    this.#sections.share(name, section)
    if (this.restoring.isTooLateFor(name)) this.#side.warn(`share("${name}") was called when this process was ready already: what its predecessor saved is not restored. Call it before listen(), or set readyWhen to manual.`)
  }

  /** Throws HANDOVER_OPTION. */
  aggregate<T>(name: string, options: AggregateOptions<T>): Aggregate<T> {
    if (name === serviceTopic) throw optionError(`aggregate('${serviceTopic}') has the name of Handover's own count, which handover.service shows`, 'Give another name')
    const aggregates = this.#side.isOff ? new Aggregates({ ask: () => Promise.resolve([]) }, id) : this.#exchange.aggregates
    return aggregates.aggregate(name, options)
  }

  service(generation: number): Service {
    // A process that is switched off never begins.
    const startedAt = this.#startedAt ?? Math.round(performance.timeOrigin)
    return { startedAt: new Date(startedAt), uptime: Math.max(0, Date.now() - startedAt), generation, requests: this.#allRequests() }
  }

  /** Answers at once, from what is known of the others; asks them in the background where that is old. */
  #allRequests(): number {
    const known = this.#known
    if (!(known && performance.now() - known.at < freshMs)) this.#look()
    return known ? known.requests + this.#side.requests() - known.ownThen : this.#side.requests()
  }

  get serviceCount(): ServiceCount {
    const { value, includes } = this.#exchange.aggregates.inherited(serviceTopic)
    const requests = this.#side.requests() + ((value as ServiceCounts | undefined)?.requests ?? 0)
    return { id, startedAt: this.#startedAt ?? Date.now(), requests, includes }
  }

  #look(): void {
    if (this.#looking) return
    this.#looking = true
    const ownThen = this.#side.requests()
    this.#requests.total().then(({ requests }) => { this.#known = { requests, at: performance.now(), ownThen } }, () => undefined)
      .finally(() => { this.#looking = false })
  }

  // ---- the age and the place of this process ----

  /** It listens for the first time. */
  began(): void {
    this.#startedAt ??= Date.now()
  }

  get startedAt(): number | undefined {
    return this.#startedAt
  }

  serves(): void {
    this.#isServing = true
    this.#checkpointing.start()
    this.#look()
  }

  servesNoMore(): void {
    this.#isServing = false
    this.#checkpointing.stop()
  }

  /** Of the transfer that runs. */
  get progress(): SectionStatus[] {
    return [...this.#saving.progress, ...(this.#isServing ? [] : this.restoring.progress)]
  }

  // ---- as a predecessor ----

  /** The sections of an offer. `fresh`: the reload was asked for without state. */
  toSend(fresh: boolean): SectionsToSend {
    this.#saving.forget()
    this.#successorIsFresh = fresh
    this.#successorReadsPlain = false
    const names = this.#sections.saved.map(({ name }) => name)
    let plain: boolean | undefined
    if (fresh && names.length > 0) this.#side.warn(`the successor begins without state, as was asked. What stays behind: ${listed(names)}`)
    return {
      names: fresh ? [] : names,
      save: (name, signal, v8) => {
        plain = this.#successorReadsPlain = plain ?? readsPlain(v8)
        return this.#saving.saveForOffer(name, signal, plain)
      },
      restoring: (name, bytes) => { this.#saving.note(name, 'restoring', bytes) }
    }
  }

  transferIsOver(): void {
    this.#saving.forget()
  }

  /** After the last request: the sections that are `final`, and what was counted. `leftMs`: until `signal` is aborted. */
  async sendLast(channel: Channel | undefined, signal: AbortSignal, leftMs: number): Promise<void> {
    await Promise.all([this.#exchange.sayLast(leftMs), this.#sendFinals(channel, signal)])
  }

  async #sendFinals(channel: Channel | undefined, signal: AbortSignal): Promise<void> {
    if (channel) {
      const finals = this.#successorIsFresh ? [] : this.#sections.saved.filter(({ final }) => final)
      for (const { name } of finals) await this.#sendFinal(name, channel, signal)
    } else if (!this.#side.kept()) {
      // An orderly end: what was stored for a crash is of no use to the next start.
      for (const { name, checkpoint } of this.#sections.saved) if (checkpoint !== undefined) forgetCheckpoint(name)
    }
  }

  async #sendFinal(name: string, channel: Channel, signal: AbortSignal): Promise<void> {
    try {
      await sendSection(name, await this.#saving.save(name, 'final', signal, this.#successorReadsPlain), channel, signal)
      if (!channel.isOpen) throw new Error('it is gone')
    } catch (error) {
      const reason = reasonOf(error)
      this.#side.warn(`what was added to section "${name}" at last does not go to the successor: ${reason}`)
      channel.send({ type: 'unsaved', name, phase: 'final', reason })
    }
  }

  // ---- as a successor ----

  /** An offer was taken: these sections follow. `since`: when the service began. */
  expect(names: readonly string[], since: number | undefined, channel: Channel): void {
    if (since !== undefined) this.#startedAt = since
    this.restoring.expect(names, (name, bytes) => { channel.send({ type: 'restoring', name, bytes }) })
  }

  /** What became of the sections; undefined where none was offered. */
  get restored(): StateReport | undefined {
    return this.restoring.isEmpty ? undefined : this.restoring.report
  }

  // ---- neighbours ----

  connect(neighbour: Neighbour, channel: Channel, peer: Peer): void {
    this.#exchange.forget(neighbour)
    this.peers.connect(neighbour, { channel, peer })
    if (neighbour === 'successor') void this.#exchange.introduce()
  }

  /** `lost`: it ended without its last message. */
  disconnect(neighbour: Neighbour, lost: boolean): void {
    this.peers.disconnect(neighbour)
    if (lost) this.#exchange.lost(neighbour)
  }

  // ---- under a keeper ----

  tell(topic: string, answer: (snapshot: CountedBy, fd: number) => void): void {
    this.#exchange.aggregates.snapshot(topic).then((snapshot) => {
      if (snapshot) withFile(snapshot, answer)
      // Out of descriptors, or own() throws. The keeper then counts this process as it last heard.
    }).catch((error: unknown) => { this.#side.warn(`the keeper is not told what this process counts as "${topic}": ${(error as Error).message}`) })
  }

  inherit(topic: string, of: string, fd: number): void {
    this.#exchange.aggregates.inherit(topic, readTold(of, fd))
  }
}
