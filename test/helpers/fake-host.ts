/**
 * A machine of processes that are none: each is a `Host` with a generation over it, all of them in this process. Their time is the test's,
 * and stands still until `advance`. Their sockets, descriptors and channels are real.
 *
 * Every message and every move of a lifecycle is a step. A test reads the steps in order, and lets a process die at any of them: from then
 * on it sends nothing, hears nothing, and has no timers, as a process that was killed. The kernel's part, closing what it had open, is done
 * here.
 */

import { socketPair } from '@handover/core/fd'
import { writeSync } from 'node:fs'
import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import type net from 'node:net'
import {
  BlockingChannel, type Channel, type Clock, Generation, handoverMessages, type Host, type KeeperSeat, type LaunchedSuccessor, native,
  openChannel, protocol
} from './internals.js'

const turn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve) })
/** A message that is sent in one turn of the loop is read in the next or the one after: after so many quiet turns nothing is on its way. */
const quietTurns = 8
/** How long a test waits for what must come without a timer. */
const patienceMs = 5_000
/** Also where a test has replaced the clock of this process. */
const realNow = performance.now.bind(performance)
/** The kernel gives no process such a pid. */
const firstPid = 5_000_001

interface Typed {
  readonly type: string
}

interface FakeTimer {
  at: number
  readonly act: () => void
  readonly everyMs: number | undefined
  readonly of: FakeProcess
  unref(): FakeTimer
}

interface ProcessEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

const killed: ProcessEnd = { code: null, signal: 'SIGKILL' }

/** What a process of the machine does: it makes its servers, and listens with `process.listen`. */
export type FakeProgram = (process: FakeProcess) => unknown

export interface Step {
  readonly by: FakeProcess
  readonly does: string
}

/** What is said while both live has no place in the order: sums that are exchanged, and whether the other's event loop turns. */
const beside = /^(says|hears) (peer|ping|pong)$/

export class FakeMachine implements AsyncDisposable {
  now = 1_000
  readonly timers = new Set<FakeTimer>()
  readonly processes: FakeProcess[] = []
  readonly steps: Step[] = []
  /** Counts all that was said, heard or done. */
  activity = 0
  /** What the next process runs: the version that was deployed. */
  program: FakeProgram
  /** Hears each step, as it is taken. */
  onStep: (step: Step) => void = () => undefined
  /** By process number: what becomes of it, and at which step. */
  readonly fates = new Map<number, { readonly at: string; readonly then: 'dies' | 'hangs' }>()

  constructor(program: FakeProgram) {
    this.program = program
  }

  /** Starts the program as a person does. Resolves when it serves. */
  async start(): Promise<FakeProcess> {
    const process = this.spawn()
    process.boot()
    await this.until(() => process.state === 'serving', 'the first process to serve')
    return process
  }

  /** `contact`: the ends of the channel to whoever starts it; `seat`: its place at a keeper. */
  spawn(contact?: readonly [number, number], seat?: KeeperSeat): FakeProcess {
    const process = new FakeProcess(this, firstPid + this.processes.length, this.processes.length + 1, contact, seat)
    this.processes.push(process)
    return process
  }

  /** Those that live. */
  get alive(): FakeProcess[] {
    return this.processes.filter(({ end }) => end === undefined)
  }

  /** All steps, such as `2 says ready`. */
  get story(): string[] {
    return this.steps.map(({ by, does }) => `${by.number} ${does}`)
  }

  /** Lets time pass, from timer to timer; what follows from each is over before the next. */
  async advance(ms: number): Promise<void> {
    await this.settle()
    const until = this.now + ms
    for (let next = this.#next(until); next; next = this.#next(until)) {
      this.now = next.at
      if (next.everyMs === undefined) this.timers.delete(next)
      else next.at += next.everyMs
      next.act()
      await this.settle()
    }
    this.now = until
  }

  #next(until: number): FakeTimer | undefined {
    return [...this.timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0]
  }

  /** Nothing moves any more without a timer. A file that is read or written in another thread takes as long as the machine likes. */
  async settle(): Promise<void> {
    for (let quiet = 0, seen = this.activity; quiet < quietTurns; quiet++) {
      await turn()
      if (this.activity !== seen || process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq'))) quiet = 0
      seen = this.activity
    }
  }

  /** Waits without any time passing. */
  async until(condition: () => boolean, what: string): Promise<void> {
    for (const end = realNow() + patienceMs; !condition(); await turn()) {
      if (realNow() > end) throw new Error(`waited for ${what} in vain. What happened:\n  ${this.story.join('\n  ')}\n${this.processes.flatMap(({ lines }) => lines).join('\n')}`)
    }
  }

  /** Ends what lives, and what the kernel would end with this process. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.processes) process.cleanUp()
    await turn()
  }
}

export class FakeProcess implements Host {
  readonly pid: number
  /** 1 for the first process of the machine. The number of its generation is the same where each before it came to serve. */
  readonly number: number
  readonly env: NodeJS.ProcessEnv = {}
  readonly clock: Clock
  readonly signals = new EventEmitter()
  /** Whether the next SIGHUP is that of its terminal, and who sent it. */
  hangup = { isHangup: false, by: '' }
  readonly terminal = { watch: () => undefined, unwatch: () => undefined, hangup: () => this.hangup }
  readonly stops = { watch: () => undefined, isSameStop: () => false }
  readonly inherited: Host['inherited']
  readonly unavailable = undefined
  readonly machine: FakeMachine
  /** Its log. */
  readonly lines: string[] = []
  /** The errors of its failed reloads. */
  readonly failures: Error[] = []
  readonly servers: net.Server[] = []
  /** What it has written to standard error. */
  stderr = ''
  /** A successor writes through its predecessor until it serves. */
  writesTo: 'standard error' | 'the relay' | 'standard error, and passes on the relay' = 'standard error'
  end: ProcessEnd | undefined
  generation!: Generation
  /** Dead, or it hangs. */
  isStill = false
  readonly ended: Promise<ProcessEnd>
  readonly #contact: FakeContact | undefined
  readonly #seat: KeeperSeat | undefined
  readonly #channels: { close(): void }[] = []
  #hasEnded: (end: ProcessEnd) => void = () => undefined

  constructor(machine: FakeMachine, pid: number, number: number, contact?: readonly [number, number], seat?: KeeperSeat) {
    this.machine = machine
    this.#seat = seat
    this.pid = pid
    this.number = number
    this.ended = new Promise((resolve) => { this.#hasEnded = resolve })
    this.#contact = contact && new FakeContact(...contact, this)
    const stderr = {
      restore: () => { if (this.writesTo === 'the relay') this.writesTo = 'standard error' },
      passOn: () => { this.writesTo = 'standard error, and passes on the relay' }
    }
    this.inherited = { contact: this.#contact, ...(contact && { stderr }) }
    if (contact) this.writesTo = 'the relay'
    const timer = (act: () => void, ms: number, isInterval: boolean): FakeTimer => {
      // As in Node, where a timer holds a signed 32-bit number.
      const lasts = ms >= 1 && ms <= 2 ** 31 - 1 ? ms : 1
      const made: FakeTimer = { at: machine.now + lasts, act, everyMs: isInterval ? lasts : undefined, of: this, unref: () => made }
      if (!this.isStill) machine.timers.add(made)
      return made
    }
    this.clock = {
      now: () => machine.now,
      setTimeout: (act, ms) => timer(act, ms, false),
      setInterval: (act, ms) => timer(act, ms, true),
      clear: (made) => { machine.timers.delete(made as FakeTimer) },
      setImmediate: (act) => { setImmediate(() => { if (!this.isStill) act() }) }
    }
  }

  // ---- its program ----

  boot(): void {
    this.generation = new Generation(this)
    this.generation.events.on('state', ({ to }) => { this.step(`is ${to}`) })
    this.generation.events.on('failed', (error) => { this.failures.push(error) })
    void this.#run()
  }

  async #run(): Promise<void> {
    try {
      await this.machine.program(this)
    } catch (error) {
      // Uncaught.
      this.stderr += String(error)
      this.exit(1)
    }
  }

  /** A server that is handed over. It answers with the number of this process. */
  serve(listener: http.RequestListener = (_request, response) => response.end(String(this.number))): http.Server {
    const server = http.createServer((request, response) => { if (!this.isStill) listener(request, response) })
    this.generation.adopt(server)
    this.servers.push(server)
    return server
  }

  /** A successor says hello before its first listen(), and its thread waits in that until the offer is there: here the others go on. */
  async listen(server: net.Server, port = 0, host = '127.0.0.1'): Promise<void> {
    await this.#contact?.heard()
    if (!this.isStill) server.listen(port, host)
    // It has died in its listen().
    if (this.end) this.#closeServers()
    else await once(server, 'listening')
  }

  /** Where its servers listen. */
  get port(): number {
    return (this.servers[0]?.address() as net.AddressInfo).port
  }

  /** Of its lifecycle; `starts` until its program runs. */
  get state(): string {
    return (this.generation as Generation | undefined)?.state ?? 'starts'
  }

  // ---- its steps ----

  step(does: string): void {
    if (this.isStill) return
    this.machine.activity++
    if (beside.test(does)) return
    const step = { by: this, does }
    this.machine.steps.push(step)
    this.machine.onStep(step)
    const fate = this.machine.fates.get(this.number)
    if (fate?.at === does) this[fate.then]()
  }

  /** Each message that this process says or hears over the channel is a step. */
  watch(channel: Channel): Channel {
    return this.#own(channel, (does, type) => { this.step(`${does} ${type}`) })
  }

  /** The channel is as still as this process. */
  #own<Hears extends Typed, Says extends Typed>(channel: Channel<Hears, Says>, note: (does: 'says' | 'hears', type: string) => void): Channel<Hears, Says> {
    const send = channel.send.bind(channel)
    const receive = channel.receive.bind(channel)
    channel.send = (message, fds) => {
      if (this.isStill) return
      send(message, fds)
      this.machine.activity++
      note('says', message.type)
    }
    channel.receive = async (...until) => {
      const received = await receive(...until)
      this.machine.activity++
      if (received) note('hears', received.message.type)
      return this.isStill ? await new Promise(() => undefined) : received
    }
    this.#channels.push(channel)
    return channel
  }

  // ---- its end ----

  /** Somebody sends it this signal, whose default action ends it. */
  signal(signal: NodeJS.Signals): void {
    if (!this.signals.emit(signal, signal)) this.dies({ code: null, signal })
  }

  /** Its event loop does not turn any more: it says and hears nothing, and holds what it has. */
  hangs(): void {
    this.isStill = true
    for (const timer of this.machine.timers) if (timer.of === this) this.machine.timers.delete(timer)
  }

  /** Killed: what it holds is closed. */
  dies(end = killed): void {
    if (this.end) return
    this.hangs()
    this.end = end
    for (const channel of this.#channels) channel.close()
    this.#contact?.abandon()
    this.#closeServers()
    this.#hasEnded(end)
  }

  #closeServers(): void {
    for (const server of this.servers) {
      server.close()
      if (server instanceof http.Server) server.closeAllConnections()
    }
  }

  /** What lies outside of the machine: files that a killed process leaves behind. */
  cleanUp(): void {
    this.dies()
    this.signals.emit('exit')
  }

  // ---- its host ----

  takeSeat(): KeeperSeat | undefined {
    return this.#seat && { ...this.#seat, line: this.#own(this.#seat.line, () => undefined) }
  }

  log(level: string, line: string): void {
    if (!this.isStill) this.lines.push(`${this.number} ${level}: ${line}`)
  }

  async launch(): Promise<LaunchedSuccessor> {
    if (this.isStill) return await new Promise(() => undefined)
    const [messages, theirMessages] = socketPair()
    const [descriptors, theirDescriptors] = socketPair()
    const successor = this.machine.spawn([theirMessages, theirDescriptors])
    setImmediate(() => { if (!successor.end) successor.boot() })
    return {
      channel: this.watch(openChannel(messages, descriptors, handoverMessages)),
      pid: successor.pid,
      child: {
        ended: successor.ended,
        stderr: () => successor.stderr,
        kill: () => { successor.dies() },
        unref: () => undefined
      }
    }
  }

  isAlive(pid: number): boolean {
    return this.machine.alive.some((process) => process.pid === pid)
  }

  kill(pid: number): boolean {
    const process = this.machine.alive.find((each) => each.pid === pid)
    process?.dies()
    return process !== undefined
  }

  exit(status = 0): void {
    if (this.isStill) return
    this.step(`exits with ${status}`)
    this.signals.emit('exit')
    this.dies({ code: status, signal: null })
  }
}

/** The first contact, whose hello is said before its thread would block. */
class FakeContact extends BlockingChannel {
  readonly #messages: number
  readonly #process: FakeProcess
  #saidHello = false
  #isOpen = true

  constructor(messages: number, descriptors: number, process: FakeProcess) {
    super(messages, descriptors)
    this.#messages = messages
    this.#process = process
  }

  /** Resolves when the answer to hello can be read. */
  async heard(): Promise<void> {
    if (this.#saidHello) return
    this.#saidHello = true
    writeSync(this.#messages, `${JSON.stringify({ type: 'hello', protocol, pid: this.#process.pid })}\n`)
    this.#process.step('says hello')
    while (this.#isOpen && native!.pollReadable(this.#messages, 0) === 0) await turn()
  }

  override say(message: Parameters<BlockingChannel['say']>[0]): void {
    if (message.type === 'hello' || this.#process.isStill) return
    super.say(message)
    this.#process.step(`says ${message.type}`)
  }

  override hear(deadline: Parameters<BlockingChannel['hear']>[0]): ReturnType<BlockingChannel['hear']> {
    const received = super.hear(deadline)
    if (received) this.#process.step(`hears ${received.message.type}`)
    return received
  }

  override open(): Channel {
    const channel = this.#process.watch(super.open())
    this.#isOpen = false
    if (this.#process.end) channel.close()
    return channel
  }

  override close(): void {
    if (this.#isOpen) super.close()
    this.#isOpen = false
  }

  /** Its process is dead. */
  abandon(): void {
    this.close()
  }
}

/** The answer of whoever serves at this port. */
export async function ask(port: number, path = '/'): Promise<string> {
  const request = http.get({ port, host: '127.0.0.1', path, agent: false })
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  let text = ''
  for await (const part of response.setEncoding('utf8')) text += part
  return text
}
