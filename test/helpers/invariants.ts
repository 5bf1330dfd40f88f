/**
 * The promises of the README as functions that every fault test calls, and the scene they are checked in: a program with its
 * generations, under the traffic of the strict client, whose next boot goes wrong in a way that the test chooses.
 */

import { mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { startLoad, type Load, type LoadOptions, type LoadResult, type Target } from '@handover/load'
import { expect } from 'vitest'
import { netTable } from './net-tables.js'
import { Program, descriptorsOf, programPath, waitFor, type ProgramEvent } from './program.js'
import { ProgramGroup } from './program-group.js'

export interface SceneOptions {
  /** As in test/programs/server.mjs; `DIR` stands for the scene's directory. */
  readonly listen?: string
  /** HandoverOptions. */
  readonly options?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
  /** The behaviour of the first boot. */
  readonly behaviour?: string
  /** False: no name, so no control socket. */
  readonly named?: boolean
}

export class Scene extends ProgramGroup implements AsyncDisposable {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'handover-fault-'))
  readonly #options: SceneOptions
  #loads: Load[] = []

  private constructor(options: SceneOptions) {
    super()
    this.#options = options
  }

  /** Resolves when the first generation listens everywhere. */
  static async start(options: SceneOptions = {}): Promise<Scene> {
    const scene = new Scene(options)
    scene.behave(options.behaviour ?? 'ok')
    const program = scene.startAgain()
    const places = (options.listen ?? '').split(',').length
    await program.until(() => program.events.filter(({ event }) => event === 'listening').length === places)
    return scene
  }

  /** The program of the first process. */
  get program(): Program {
    return this.programs[0]!
  }

  get controlSocket(): string {
    return path.join(this.directory, 'scene.sock')
  }

  /** Where the first generation listens, in the order of `listen`. */
  get targets(): Target[] {
    return this.program.events.filter(({ event, pid }) => event === 'listening' && pid === this.program.pid).map(({ address }) => {
      if (typeof address === 'string') return { path: address }
      const { address: host, port } = address as { address: string; port: number }
      return { host, port }
    })
  }

  async event(name: string, where: (event: ProgramEvent) => boolean = () => true): Promise<ProgramEvent> {
    return await this.until(() => this.events.find((event) => event.event === name && where(event)))
  }

  /** Resolves when this process is, or was, in this state. */
  async state(name: string, where: (event: ProgramEvent) => boolean = () => true): Promise<ProgramEvent> {
    return await this.event('state', (event) => event['to'] === name && where(event))
  }

  /** What every boot from now on does: see test/programs/behaviour.mjs and fake-successor.mjs. */
  behave(word: string): void {
    const file = path.join(this.directory, 'behaviour')
    writeFileSync(`${file}.new`, word)
    renameSync(`${file}.new`, file)
  }

  /** Starts the program, for the first time or once more: a rendezvous. */
  startAgain(): Program {
    const { listen = '127.0.0.1:0', options, env, named = true } = this.#options
    const program = Program.start(programPath('fault.mjs'), {
      env: {
        ...(named && { HANDOVER_NAME: 'scene' }),
        // Node 26 reads that file in a thread of its own, and has it open for as long as that takes.
        NODE_EXTRA_CA_CERTS: undefined,
        HANDOVER_DIR: this.directory,
        BEHAVIOUR_FILE: path.join(this.directory, 'behaviour'),
        LISTEN: listen.replaceAll('DIR', this.directory),
        OPTIONS: JSON.stringify({ undoWindow: 300, drainTimeout: 10_000, ...options }),
        ...env
      }
    })
    this.programs.push(program)
    return program
  }

  /** The strict client with some of every kind of traffic. */
  load(options: LoadOptions = traffic, target = this.targets[0]!): Load {
    const load = startLoad(target, options)
    this.#loads.push(load)
    return load
  }

  /** The generation that answers. */
  async answering(target = this.targets[0]!): Promise<number> {
    return (await ask(target, '/')).pid
  }

  /** Reloads by signal: the `report` of the switch or the `failed` of `pid`. */
  async hangUp(pid: number): Promise<ProgramEvent> {
    const before = this.events.length
    process.kill(pid, 'SIGHUP')
    return await this.until(() => this.events.slice(before).find((event) => event.pid === pid && (event.event === 'failed' || resultOf(event) === 'switched')))
  }

  /** A reload that works; resolves with the process of the successor when it serves. */
  async reload(pid: number): Promise<number> {
    this.behave('ok')
    const report = await this.hangUp(pid)
    expect(report, String(report['message'])).toMatchObject({ event: 'report' })
    return (report['report'] as { successor: { pid: number } }).successor.pid
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.programs) await program[Symbol.asyncDispose]()
    for (const load of this.#loads) await load.stop()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** Enough of every kind that a closed port or a lost request is seen within some milliseconds, and little enough for two cores. */
export const traffic: LoadOptions = {
  keepAlive: { clients: 3, thinkMs: 15 },
  newConnections: { clients: 2, thinkMs: 12 },
  slow: { clients: 2, ms: 60 },
  post: { clients: 1, pauseMs: 20 },
  stream: { clients: 1, chunks: 4, ms: 15 },
  answerTimeoutMs: 15_000
}

/** What the result of a `report` event is. */
export const resultOf = (event: ProgramEvent): string | undefined => event.event === 'report' ? (event['report'] as { result: string }).result : undefined

export interface Asked {
  readonly status: number
  /** The process that answered. */
  readonly pid: number
  readonly body: string
}

/** One request over a connection of its own. */
export async function ask(target: Target, url: string): Promise<Asked> {
  const where = 'path' in target ? { socketPath: target.path } : { host: target.host, port: target.port }
  return await answerTo(http.get({ ...where, path: url, agent: false }))
}

async function answerTo(request: http.ClientRequest): Promise<Asked> {
  const answer = await new Promise<http.IncomingMessage>((resolve, reject) => { request.once('response', resolve).once('error', reject) })
  const body = Buffer.concat(await answer.toArray()).toString()
  return { status: answer.statusCode ?? 0, pid: Number(answer.headers['x-pid']), body }
}

/** A request that runs until the test ends it: half of its body has been sent. */
export class HeldRequest {
  /** The whole answer; rejects when there is none. */
  readonly answered: Promise<Asked>
  readonly #request: http.ClientRequest

  constructor(target: Target) {
    const where = 'path' in target ? { socketPath: target.path } : { host: target.host, port: target.port }
    this.#request = http.request({ ...where, method: 'POST', path: '/echo', agent: false, headers: { 'content-length': 2 } })
    this.answered = answerTo(this.#request)
    this.answered.catch(() => undefined)
    this.#request.write('a')
  }

  async finish(): Promise<Asked> {
    this.#request.end('b')
    return await this.answered
  }
}

/** One connection that stays open between requests, as raw as it can be: a lost answer or a close is seen at once. */
export class KeptConnection {
  /** How it ended: undefined while it is open. */
  closed: 'end' | 'reset' | undefined
  /** Closed although a request had been sent and not answered. */
  lost = false
  /** The last answer said that the connection ends with it. */
  toldToGo = false
  readonly #socket: net.Socket
  #text = ''
  #wake: ((answer: number | 'closed') => void) | undefined

  private constructor(socket: net.Socket) {
    this.#socket = socket
    socket.setEncoding('latin1').on('data', (text: string) => {
      this.#text += text
      const head = this.#text.indexOf('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(this.#text)?.[1])
      if (head < 0 || this.#text.length < head + 4 + length) return
      this.toldToGo = /connection: close/i.test(this.#text.slice(0, head))
      const pid = Number(/x-pid: (\d+)/.exec(this.#text)?.[1])
      this.#text = ''
      this.#answer(pid)
    })
    socket.on('error', () => { this.closed = 'reset' })
    socket.on('close', () => {
      this.closed ??= 'end'
      this.lost ||= this.#wake !== undefined
      this.#answer('closed')
    })
  }

  #answer(answer: number | 'closed'): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.(answer)
  }

  /** Opens them and has each answered once, some at a time. */
  static async open(count: number, target: Target): Promise<KeptConnection[]> {
    const { host = '127.0.0.1', port = 0 } = target as { host?: string; port?: number }
    const all: KeptConnection[] = []
    while (all.length < count) {
      const some = await Promise.all(Array.from({ length: Math.min(100, count - all.length) }, async () => {
        const socket = net.connect({ host, port })
        await new Promise<void>((resolve, reject) => { socket.once('connect', resolve).once('error', reject) })
        const connection = new KeptConnection(socket)
        await connection.ask()
        return connection
      }))
      all.push(...some)
    }
    return all
  }

  /** The process that answers. */
  async ask(url = '/'): Promise<number | 'closed'> {
    if (this.closed || this.toldToGo) return 'closed'
    return await new Promise((resolve) => {
      this.#wake = resolve
      this.#socket.write(`GET ${url} HTTP/1.1\r\nHost: a\r\n\r\n`)
    })
  }

  /** Sends a request but for its last byte. */
  begin(): void {
    this.#socket.write('POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na')
  }

  async finish(): Promise<number | 'closed'> {
    return await new Promise((resolve) => {
      this.#wake = resolve
      this.#socket.write('b')
    })
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

/** Asks on all of them: how many each process answered, and how many are closed. */
export async function answersOf(connections: readonly KeptConnection[], url?: string): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const answer of await Promise.all(connections.map((connection) => connection.ask(url)))) counts[answer] = (counts[answer] ?? 0) + 1
  return counts
}

// ---- the promises ----

/** 1. The port never closes: no connect was refused or reset. Requests inside a process that was killed are another matter. */
export function portNeverClosed(result: LoadResult): void {
  expect(result.answers, 'there was traffic').toBeGreaterThan(0)
  expect(result.losses.filter(({ reason }) => reason === 'refused' || reason === 'connect')).toEqual([])
}

/** 3. No request is lost. */
export function nothingLost(result: LoadResult): void {
  portNeverClosed(result)
  expect(result.losses).toEqual([])
}

/** 3 and 4. No request is lost, and no connection is closed by the server. */
export function nothingLostNothingClosed({ lost, losses, notes, closedByServer, kinds }: LoadResult): void {
  expect({ lost, losses, notes, closed: closedByServer }).toEqual(
    { lost: 0, losses: [], notes: [], closed: { total: 0, announced: 0, idle: 0, idleReset: 0 } }
  )
  for (const { answers } of Object.values(kinds)) expect(answers).toBeGreaterThan(0)
}

/** What a failed reload must leave as it was. */
export interface Standing {
  readonly pid: number
  readonly generation: number
  readonly state: string
  readonly descriptors: Readonly<Record<string, number>>
  readonly children: readonly number[]
}

/** The same, once its own predecessor has ended and with it the channel to it. */
export async function settled(scene: Scene, pid: number): Promise<Standing> {
  await waitFor(() => scene.alive.length === 1)
  // It has closed its ends too when it has answered twice: what was at its end before the first was seen by then.
  for (let turns = 0; turns < 2; turns++) await scene.answering()
  await nothingIsWritten(pid)
  return standing(scene, pid)
}

export function standing(scene: Scene, pid: number): Standing {
  const last = scene.events.findLast((event) => event.event === 'state' && event.pid === pid)
  return { pid, generation: last?.generation ?? 0, state: String(last?.['to']), descriptors: kindsOf(pid), children: childrenOf(pid) }
}

export interface Failure {
  readonly code: string
  /** In the first part of the message. */
  readonly says?: RegExp
  /** The successor's last words, in the message and in `stderr` of the error. */
  readonly stderr?: RegExp
}

/**
 * 2. A failed reload changes nothing. Runs `attempt`, which resolves with the `failed` event, under traffic; then everything is as
 * before, and the next reload works. Resolves with the process that serves then.
 */
export async function aFailedReloadChangesNothing(
  scene: Scene, pid: number, expected: Failure, attempt: () => Promise<ProgramEvent>
): Promise<number> {
  const load = scene.load()
  await load.until(({ answers }) => answers > 0)
  const before = await settled(scene, pid)
  const failed = await attempt()
  saysWhatServesAndWhatToDo(failed, pid, expected)
  await isAsBefore(scene, before)
  expect(await scene.answering()).toBe(pid)
  const successor = await scene.reload(pid)
  await load.until(({ versions }) => versions.some((version) => version.pid === successor))
  nothingLost(await load.stop())
  return successor
}

/** The predecessor, to the last descriptor. */
export async function isAsBefore(scene: Scene, before: Standing): Promise<void> {
  await waitFor(() => JSON.stringify(standing(scene, before.pid)) === JSON.stringify(before), 20_000).catch(() => undefined)
  expect(standing(scene, before.pid)).toEqual(before)
}

/** The three parts of every message: what happened, who is serving now, what to do; and the last lines of stderr. */
export function saysWhatServesAndWhatToDo(failed: ProgramEvent, pid: number, { code, says, stderr }: Failure): void {
  expect(failed).toMatchObject({ event: 'failed', code })
  const [what, serves, todo] = String(failed['message']).split('\n  ')
  expect(what).toMatch(says ?? /./)
  expect(what, 'a sentence').toMatch(/[^.]\.$/)
  expect(serves).toMatch(new RegExp(`^Process ${pid} \\(generation ${failed.generation}\\) keeps serving tcp .+; no connection was lost\\.$`))
  expect(todo).toMatch(/^[A-Z].+[.:]/)
  if (!stderr) return
  expect(failed['stderr']).toMatch(stderr)
  expect(failed['message']).toMatch(stderr)
}

// ---- /proc ----

/** Some seconds after its start a process writes down the code that Node has compiled, which may take as long as the disk likes. */
export async function nothingIsWritten(pid: number): Promise<void> {
  await waitFor(() => ![...descriptorsOf(pid).values()].some((link) => link.includes('/.compiled-')))
}

/** The descriptors of a process by kind; connections of clients, which come and go, and what ended meanwhile are left out. */
export function kindsOf(pid: number): Record<string, number> {
  const sockets = socketKinds(pid)
  const kinds: Record<string, number> = {}
  for (const link of descriptorsOf(pid).values()) {
    const socket = /^socket:\[(\d+)\]$/.exec(link)?.[1]
    const kind = socket === undefined ? link.replace(/:\[\d+\]$/, '') : (sockets.get(socket) ?? 'connection')
    // libuv keeps the one by which it watches folders, once it has one.
    if (kind !== 'connection' && kind !== 'anon_inode:inotify') kinds[kind] = (kinds[kind] ?? 0) + 1
  }
  return Object.fromEntries(Object.entries(kinds).sort())
}

/** Inode → kind. proc_pid_net(5). */
function socketKinds(pid: number): Map<string, string> {
  const kinds = new Map<string, string>()
  for (const name of ['tcp', 'tcp6'] as const) {
    for (const [, local, , state, , , , , , inode] of netTable(pid, name)) kinds.set(inode!, state === '0A' ? `${name} listener ${local}` : 'connection')
  }
  for (const name of ['udp', 'udp6'] as const) for (const [, local, , , , , , , , inode] of netTable(pid, name)) kinds.set(inode!, `${name} ${local}`)
  for (const [, , , flags, , , inode, file] of netTable(pid, 'unix')) {
    const listens = (parseInt(flags!, 16) & 0x1_0000) !== 0
    kinds.set(inode!, listens ? `unix listener ${file?.replace(/\.new$|[^/]*$/, '')}` : file === undefined ? 'unix' : 'connection')
  }
  return kinds
}

export function childrenOf(pid: number): number[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((child) => {
    try {
      const text = readFileSync(`/proc/${child}/stat`, 'utf8')
      return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]) === pid
    } catch {
      return false
    }
  })
}

/** Whether the process holds the listener of this TCP port, listening or silent. */
export function holdsListener(pid: number, port: number): boolean {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return Object.keys(kindsOf(pid)).some((kind) => kind.includes('listener') && kind.endsWith(suffix))
}
