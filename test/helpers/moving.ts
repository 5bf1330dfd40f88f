/**
 * The program test/programs/move.mjs under a test of moving connections: its generations, clients whose bytes the test writes itself, and
 * what every one of these tests says of the end: the client's connection is still open, and the report of the first generation counts
 * every connection once.
 */

import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { expect, onTestFinished } from 'vitest'
import { type Address, Client } from './client.js'
import { exists, Program, type ProgramEvent, programPath } from './program.js'

/** As move.mjs takes them. */
export interface Settings {
  readonly kind?: string
  /** Places, in which `DIR` stands for a temporary directory. */
  readonly listen?: readonly string[]
  readonly options?: Readonly<Record<string, unknown>>
  /** Options of createServer. */
  readonly server?: Readonly<Record<string, unknown>>
  /** Set on the server. */
  readonly limits?: Readonly<Record<string, unknown>>
  readonly ticketKeys?: string
  readonly veto?: boolean
  readonly closes?: boolean
  readonly upgrade?: boolean
}

export interface MovingOptions extends Settings {
  /** The settings of the generations after the first, where they differ. */
  readonly next?: Settings
  /** At its drain the first generation stands still until `unblock()`. */
  readonly blocked?: boolean
  readonly env?: Readonly<Record<string, string>>
}

interface Counts {
  readonly moved: number
  readonly drained: number
  readonly closedIdle: number
  readonly cut: number
}

export interface MoveReport {
  readonly result: string
  readonly connections: Counts & {
    readonly open: number; readonly kinds: Readonly<Record<string, Counts>>; readonly stayed: Readonly<Record<string, number>>
  }
  readonly requestsCut: readonly { readonly method: string; readonly path: string; readonly ms: number }[]
}

export class Moving {
  readonly program: Program
  /** In the order of `listen`. */
  readonly addresses: readonly Address[]
  readonly #directory: string
  readonly #tls: boolean

  private constructor(program: Program, addresses: readonly Address[], directory: string, tls: boolean) {
    this.program = program
    this.addresses = addresses
    this.#directory = directory
    this.#tls = tls
  }

  /** A program that ends with the test; resolves when its first generation listens everywhere. */
  static async start({ next, blocked = false, env, ...settings }: MovingOptions = {}): Promise<Moving> {
    const directory = mkdtempSync(path.join(tmpdir(), 'handover-move-'))
    // In the places alone: three letters stand in some certificate, too.
    const text = (given: Settings & { block?: string | false }): string =>
      JSON.stringify({ ...given, ...(given.listen && { listen: given.listen.map((place) => place.replaceAll('DIR', directory)) }) })
    const program = Program.start(programPath('move.mjs'), {
      env: { SETTINGS: text({ ...settings, ...(blocked && { block: path.join(directory, 'go') }) }), NEXT: text(next ?? {}), ...env }
    })
    onTestFinished(async () => {
      await program[Symbol.asyncDispose]()
      rmSync(directory, { recursive: true, force: true })
    })
    const count = settings.listen?.length ?? 1
    const listening = program.until(() => {
      const found = program.events.filter(({ event }) => event === 'listening')
      return found.length === count && found
    })
    const found = await Promise.race([listening, program.ended.then(() => { throw new Error(`it ended before it listened: ${program.stderr}`) })])
    return new Moving(program, found.map(({ address }) => address as Address), directory, settings.kind === 'https')
  }

  get address(): Address {
    return this.addresses[0]!
  }

  /** A connection that has only been made, and that the kernel has given to the first generation. */
  async client(address = this.address): Promise<Client> {
    const client = await Client.connect(address, { tls: this.#tls })
    onTestFinished(() => { client[Symbol.dispose]() })
    return client
  }

  /** A connection on which one request has been answered. */
  async idleClient(address?: Address): Promise<Client> {
    const client = await this.client(address)
    await ask(client, '/')
    return client
  }

  /** Reloads; resolves when the next generation serves. */
  async reload(): Promise<void> {
    await this.program.hangUp()
  }

  /** Reloads while a connection is open that has not begun its handshake, which it makes then. */
  async handshakeAfterReload(): Promise<Client> {
    const { address, port } = this.address as net.AddressInfo
    const plain = net.connect(port, address)
    onTestFinished(() => { plain.destroy() })
    await this.program.event('connection')
    await this.reload()
    const secure = await Client.secure(plain)
    onTestFinished(() => { secure[Symbol.dispose]() })
    return secure
  }

  /** Resolves when this many connections have come to a generation, moved or new. */
  async arrived(count: number, generation = 2): Promise<void> {
    await this.program.until(() => this.program.events.filter((event) => event.event === 'connection' && event.generation === generation).length >= count)
  }

  /** Resolves when the first generation stands still, in the drain, before anything has moved. */
  async blocked(): Promise<void> {
    await this.program.event('blocked')
  }

  unblock(): void {
    writeFileSync(path.join(this.#directory, 'go'), '')
  }

  /** The request has reached its handler. */
  async began(url: string): Promise<ProgramEvent> {
    return await this.program.event('request', (event) => event['url'] === url)
  }

  /** Ends what is held in this generation. */
  release(generation = 1): void {
    const { pid } = this.program.events.find((event) => event.generation === generation)!
    process.kill(pid, 'SIGUSR2')
  }

  /** The first generation has ended well, has counted every connection once, and its successor lives. */
  async report({ complains = false } = {}): Promise<MoveReport> {
    const { program } = this
    expect(await program.ended, program.stderr).toEqual({ code: 0, signal: null })
    const event = await program.event('report', (found) => found.pid === program.pid && (found['report'] as MoveReport).result === 'drained')
    const report = event['report'] as MoveReport
    const { open, kinds, ...counts } = report.connections
    const sum = (of: Counts): number => of.moved + of.drained + of.closedIdle + of.cut
    expect(sum(counts), JSON.stringify(report.connections)).toBe(open)
    for (const key of ['moved', 'drained', 'closedIdle', 'cut'] as const) {
      expect(Object.values(kinds).reduce((total, kind) => total + kind[key], 0), key).toBe(counts[key])
    }
    expect(exists(program.serving), program.stderr).toBe(true)
    if (!complains) expect(program.stderr).not.toMatch(/error|is closed:/i)
    return report
  }
}

export interface Answer {
  readonly status: number
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

/** The whole answers in what came, at most `count`, and the rest. Throws on anything that is not an answer. */
export function answersIn(text: string, count = Infinity): { answers: Answer[]; rest: string } {
  const answers: Answer[] = []
  let rest = text
  while (answers.length < count) {
    const head = /^HTTP\/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n/.exec(rest)
    if (!head) {
      if (rest !== '' && !'HTTP/1.'.startsWith(rest.slice(0, 7))) throw new Error(`not an answer: ${JSON.stringify(rest.slice(0, 200))}`)
      return { answers, rest }
    }
    const status = Number(head[1])
    const headers = new Map(head[2]!.split('\r\n').slice(0, -1).map((line) => {
      const [name, value] = line.split(/:[ \t]*(.*)/, 2)
      return [name!.toLowerCase(), value!] as const
    }))
    const after = rest.slice(head[0].length)
    if (status < 200) {
      rest = after
      continue
    }
    const body = headers.get('transfer-encoding') === 'chunked' ? chunks(after) : plain(after, Number(headers.get('content-length') ?? 0))
    if (!body) return { answers, rest }
    answers.push({ status, headers, body: body.text })
    rest = after.slice(body.length)
  }
  return { answers, rest }
}

interface Body {
  readonly text: string
  /** On the wire. */
  readonly length: number
}

const plain = (text: string, length: number): Body | undefined => text.length < length ? undefined : { text: text.slice(0, length), length }

function chunks(text: string): Body | undefined {
  let body = ''
  let at = 0
  for (;;) {
    const size = /^([0-9a-f]+)\r\n/i.exec(text.slice(at, at + 20))
    if (!size) return undefined
    const length = parseInt(size[1]!, 16)
    const begin = at + size[0].length
    if (text.length < begin + length + 2) return undefined
    body += text.slice(begin, begin + length)
    at = begin + length + 2
    if (length === 0) return { text: body, length: at }
  }
}

/**
 * Resolves with the next `count` answers when they are whole, and takes them out of `client.text`. Rejects when the connection ends before.
 */
export async function answers(client: Client, count: number): Promise<Answer[]> {
  for (let how: string | undefined; ;) {
    const found = answersIn(client.text, count)
    if (found.answers.length === count) {
      client.text = found.rest
      return found.answers
    }
    // The last bytes may come together with the end.
    if (how !== undefined) throw new Error(`the connection ended (${how}) after ${found.answers.length} of ${count} answers, and then ${JSON.stringify(found.rest.slice(0, 1000))}`)
    how = await Promise.race([once(client.socket, 'data').then(() => undefined), client.over])
  }
}

export const nextAnswer = async (client: Client): Promise<Answer> => (await answers(client, 1))[0]!

/** One request and its whole answer, and nothing but that. */
export async function ask(client: Client, target: string, options?: Parameters<Client['request']>[1]): Promise<Answer> {
  client.request(target, options)
  const answer = await nextAnswer(client)
  expect(client.text, 'nothing is left').toBe('')
  return answer
}

/** The client has seen no end of its connection, and generation `generation` answers on it. */
export async function goesOn(client: Client, generation = 2): Promise<void> {
  const answer = await ask(client, '/')
  expect(answer).toMatchObject({ status: 200, body: `generation ${generation} answers /` })
  expect(answer.headers.get('connection') ?? 'keep-alive').toBe('keep-alive')
  expect(isOpen(client)).toBe(true)
}

export const isOpen = ({ socket }: Client): boolean => !socket.destroyed && !socket.readableEnded && socket.readable && socket.writable

/** One connection, that moved. */
export const oneMoved = {
  connections: { open: 1, moved: 1, drained: 0, closedIdle: 0, cut: 0, kinds: { http: { moved: 1 } }, stayed: {} },
  requestsCut: []
}

/**
 * Reloads, and resolves when all has moved that could move at once: an idle connection that was made last is among it. What was sent
 * before on the others was read by then.
 */
export async function switched(moving: Moving): Promise<Client> {
  const witness = await moving.idleClient()
  await moving.reload()
  await moving.arrived(1)
  return witness
}

/** The connection moves too, and both go on. */
export async function bothMove(moving: Moving, client: Client, witness: Client): Promise<void> {
  await moving.arrived(2)
  await goesOn(client)
  await goesOn(witness)
  expect(await moving.report()).toMatchObject(
    { connections: { open: 2, moved: 2, drained: 0, closedIdle: 0, cut: 0, kinds: { http: { moved: 2 } }, stayed: {} }, requestsCut: [] }
  )
}

/** Resolves when the second generation has this many connections. */
export async function untilOnly(witness: Client, count: number): Promise<void> {
  while ((await ask(witness, '/count')).body !== `generation 2 has ${count} connections`) await wait(10)
}

/** What came until the connection ended, which is whole. */
export async function answersBeforeTheEnd(client: Client): Promise<Answer[]> {
  expect(await client.over).toBe('closed')
  const { answers: found, rest } = answersIn(client.text)
  expect(rest).toBe('')
  return found
}
