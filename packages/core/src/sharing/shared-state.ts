/**
 * What this process knows and passes on: sections, peers, sums over processes, the age of the service. Brings the parts together; the
 * generation tells it what happens, and asks it at the steps of a handover.
 */

import { randomBytes } from 'node:crypto'
import { reasonOf } from '../errors.js'
import { closeLater } from '../platform/memory-file.js'
import type { Channel } from '../protocol/channel.js'
import type { SectionStatus, ServiceCount } from '../protocol/control-messages.js'
import type { MessageOf, Peer } from '../protocol/handover-messages.js'
import type { CountedBy } from '../protocol/keeper-messages.js'
import { listed, type StateReport } from '../protocol/report.js'
import { loadSoon } from '../protocol/value-codec.js'
import { countedBy, ProcessExchange, readTold, withFile } from './aggregates/aggregate-exchange.js'
import { Aggregates, type Aggregate, type AggregateOptions } from './aggregates/aggregate.js'
import type { CountGatherer } from './count-gatherer.js'
import { PeerMessages } from './peer-messages.js'
import { CheckpointTimer } from './sections/checkpoint-timer.js'
import { Sections } from './sections/section-registry.js'
import { SectionRestorer } from './sections/section-restorer.js'
import { SectionSaver, type Author } from './sections/section-saver.js'
import type { SectionsToSend } from './sections/sections-to-send.js'
import { cannotStore, forgetCheckpoint, storeCheckpoint } from './sections/systemd-store.js'
import { serviceTopic, type ServiceCounts } from './service-topic.js'
import type { Neighbour, Section, Service } from './sharing-api.js'

/** Of this process, unique over all generations: pids come again. */
const id = `${process.pid}-${randomBytes(6).toString('hex')}`

/** How old what the other processes count may be, in what is shown at once. */
const freshMs = 1_000

export interface SharedStateSide {
  author(): Author
  /** The link to the keeper; undefined without one. */
  kept(): CountGatherer | undefined
  /** Begun in this process since it started. */
  requests(): number
  warn(line: string): void
}

export class SharedState {
  readonly #side: SharedStateSide
  readonly #sections = new Sections(({ name }) => {
    this.#restoring?.declared(name)
    if (this.#isServing) this.#checkpointing.start()
  })
  readonly #saving: SectionSaver
  readonly #checkpointing: CheckpointTimer
  readonly peers: PeerMessages
  readonly #exchange: ProcessExchange
  readonly #aggregates: Aggregates
  readonly #requests: Aggregate<ServiceCounts>
  #restoring: SectionRestorer | undefined
  #isServing = false
  /** The successor was to begin without what this process knows. */
  #successorIsFresh = false
  #startedAt: number | undefined
  #known: { readonly requests: number; readonly at: number; readonly ownThen: number } | undefined
  #looking = false

  constructor(side: SharedStateSide) {
    this.#side = side
    this.#saving = new SectionSaver(this.#sections, () => side.author(), (line) => { side.warn(line) })
    this.peers = new PeerMessages((line) => { side.warn(line) })
    this.#exchange = new ProcessExchange(this.peers, {
      kept: () => side.kept(),
      snapshot: (topic) => this.#aggregates.snapshot(topic),
      inherit: (topic, told) => { this.#aggregates.inherit(topic, told) },
      topics: () => this.#aggregates.topics,
      warn: (line) => { side.warn(line) }
    })
    this.#aggregates = new Aggregates(this.#exchange, id, undefined, (line) => { side.warn(line) })
    const requests = { own: () => ({ requests: side.requests() }), add: (a: ServiceCounts, b: ServiceCounts) => ({ requests: a.requests + b.requests }) }
    this.#requests = this.#aggregates.aggregate(serviceTopic, requests)
    this.#checkpointing = new CheckpointTimer(this.#sections, this.#saving, {
      whyNot: (name) => (side.kept() ? undefined : cannotStore(process.env, name)),
      keep: (name, { fd, bytes }) => side.kept()?.checkpoint(name, fd, bytes) ?? storeCheckpoint(name, fd),
      warn: (line) => { side.warn(line) }
    })
  }

  // ---- what programs call ----

  /** Throws HANDOVER_OPTION. */
  share(name: string, section: Section): void {
    this.#sections.share(name, section)
    loadSoon()
    if (this.#restoring?.isTooLateFor(name)) this.#side.warn(`share("${name}") was called when this process was ready already: what its predecessor saved is not restored. Call it before listen(), or set readyWhen to manual.`)
  }

  aggregate<T>(name: string, options: AggregateOptions<T>): Aggregate<T> {
    loadSoon()
    return this.#aggregates.aggregate(name, options)
  }

  service(generation: number): Service {
    // A process that is switched off never begins.
    const startedAt = this.#startedAt ?? Math.round(performance.timeOrigin)
    return { startedAt: new Date(startedAt), uptime: Date.now() - startedAt, generation, requests: this.#allRequests() }
  }

  /** What was known of the others is looked up anew in the background. */
  #allRequests(): number {
    const known = this.#known
    if (!(known && performance.now() - known.at < freshMs)) this.#look()
    return known ? known.requests + this.#side.requests() - known.ownThen : this.#side.requests()
  }

  get serviceCount(): ServiceCount {
    const { value, includes } = this.#aggregates.inherited(serviceTopic)
    return { id, startedAt: this.#startedAt ?? Date.now(), requests: this.#side.requests() + ((value as ServiceCounts | undefined)?.requests ?? 0), includes }
  }

  #look(): void {
    if (this.#looking) return
    this.#looking = true
    const ownThen = this.#side.requests()
    this.#requests.total().then(({ requests }) => { this.#known = { requests, at: performance.now(), ownThen } }, () => undefined).finally(() => { this.#looking = false })
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

  /** Of a transfer that runs. */
  get progress(): SectionStatus[] {
    return [...this.#saving.progress, ...(this.#isServing ? [] : (this.#restoring?.progress ?? []))]
  }

  // ---- as a predecessor ----

  /** The sections of an offer. `fresh`: somebody asked for a successor that knows nothing. */
  toSend(fresh: boolean): SectionsToSend {
    this.#saving.forget()
    this.#successorIsFresh = fresh
    if (fresh && this.#saving.names.length > 0) this.#side.warn(`the successor begins without state, as was asked. What stays behind: ${listed(this.#saving.names)}`)
    return {
      names: fresh ? [] : this.#saving.names,
      save: async (name, signal) => await this.#saving.save(name, 'offer', signal),
      restoring: (name, bytes) => { this.#saving.note(name, 'restoring', bytes) }
    }
  }

  transferIsOver(): void {
    this.#saving.forget()
  }

  /** After the last request: the sections that ask for it, and what was counted. */
  async sendLast(channel: Channel | undefined, signal: AbortSignal): Promise<void> {
    if (channel) {
      for (const name of this.#successorIsFresh ? [] : this.#saving.finalNames) {
        try {
          const { fd, bytes } = await this.#saving.save(name, 'final', signal)
          try {
            await channel.sendWhenRoom({ type: 'section', name, phase: 'final', bytes }, [fd], signal)
            if (!channel.isOpen) throw new Error('it is gone')
          } finally {
            void closeLater(fd)
          }
        } catch (error) {
          const reason = reasonOf(error)
          this.#side.warn(`what was added to section "${name}" at last does not go to the successor: ${reason}`)
          channel.send({ type: 'unsaved', name, phase: 'final', reason })
        }
      }
    } else if (!this.#side.kept()) {
      // An orderly end: what was kept for a crash is of no use to the next start.
      for (const { name, checkpoint } of this.#sections.saved) if (checkpoint !== undefined) forgetCheckpoint(name)
    }
    await this.#exchange.sayLast()
  }

  // ---- as a successor ----

  /** An offer was taken. */
  expect(names: readonly string[], since: number | undefined, channel: Channel): void {
    if (since !== undefined) this.#startedAt = since
    this.#restoring = new SectionRestorer(this.#sections, names, {
      progress: (name, bytes) => { channel.send({ type: 'restoring', name, bytes }) },
      warn: (line) => { this.#side.warn(line) }
    })
  }

  /** `fd`: the descriptor that was sent before the word; undefined where it did not arrive. */
  arrived({ name, phase, bytes }: MessageOf<'section'>, fd: number | undefined): void {
    if (this.#restoring) this.#restoring.arrived(name, phase, bytes, fd)
    else if (fd !== undefined) void closeLater(fd)
  }

  unsaved({ name, phase, reason }: MessageOf<'unsaved'>): void {
    this.#restoring?.unsaved(name, phase, reason)
  }

  get hasToRestore(): boolean {
    return this.#restoring !== undefined && !this.#restoring.isEmpty
  }

  /** What became of it; undefined where nothing was offered. */
  get restored(): StateReport | undefined {
    return this.hasToRestore ? this.#restoring?.report : undefined
  }

  get restoring(): SectionRestorer | undefined {
    return this.#restoring
  }

  // ---- neighbours ----

  connect(neighbour: Neighbour, channel: Channel, peer: Peer): void {
    this.#exchange.forget(neighbour)
    this.peers.connect(neighbour, { channel, peer })
    if (neighbour === 'successor') void this.#exchange.introduce()
  }

  /** `lost`: it said no last word. */
  disconnect(neighbour: Neighbour, lost: boolean): void {
    this.peers.disconnect(neighbour)
    if (lost) this.#exchange.lost(neighbour)
  }

  // ---- under a keeper ----

  tell(topic: string, answer: (snapshot: CountedBy, fd: number) => void): void {
    this.#aggregates.snapshot(topic).then((snapshot) => {
      if (snapshot) withFile(snapshot, (fd) => { answer(countedBy(snapshot), fd) })
      // Out of descriptors, or what own() throws: nobody here asked, and the keeper counts this process with its last word.
    }).catch((error: unknown) => { this.#side.warn(`the keeper is not told what this process counts as "${topic}": ${(error as Error).message}`) })
  }

  inherit(topic: string, of: string, fd: number): void {
    this.#aggregates.inherit(topic, readTold(of, fd))
  }
}
