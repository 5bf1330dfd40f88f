/**
 * Sessions of HTTP/2 that come from a reverse proxy, and move: nginx (grpc_pass) and HAProxy (proto h2). Neither looks headers up in a
 * table, nor says that the table has become smaller, as a client must that is told so. A proxy that is not installed is skipped.
 */

import { createHash } from 'node:crypto'
import http from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Generations } from '../helpers/generations.js'
import { drained, installed, portOf } from '../helpers/peers.js'
import { programPath, waitFor } from '../helpers/program.js'
import { startProxy } from '../helpers/proxies.js'

const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))

/**
 * HAProxy has one session for all users, which should have a gap. nginx itself closes a connection that is idle when something comes, be it
 * only a ping, and opens the next.
 */
const proxies = [
  { name: 'nginx', kind: 'h2c', users: 12, closes: true },
  { name: 'haproxy', kind: 'h2c', users: 3, closes: false }, { name: 'haproxy', kind: 'h2', users: 3, closes: false }
] as const

const hashOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** Users who post again and again through the proxy, check the answers, and never retry. */
class Users {
  answers = 0
  readonly wrong: string[] = []
  readonly versions = new Set<string>()
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: Infinity })
  readonly #users: Promise<void>[]
  #stopping = false

  constructor(socketPath: string, users: number) {
    this.#users = Array.from({ length: users }, async (_, index) => {
      for (let count = 0; !this.#stopping; count++) {
        await this.#post(socketPath, Buffer.alloc(count % 7 === 0 ? 50_000 : count % 300, `${index} ${count} `), (count * 997) % 90_000)
          .catch((error: unknown) => { this.wrong.push(String(error)) })
        await wait((index % 4) * 15)
      }
    })
  }

  async #post(socketPath: string, body: Buffer, bytes: number): Promise<void> {
    const headers = { 'content-length': body.length, 'x-thing': 'a thing that repeats' }
    const request = http.request({ socketPath, agent: this.#agent, method: 'POST', path: `/?bytes=${bytes}`, headers })
    const answer = await new Promise<http.IncomingMessage>((resolve, reject) => { request.once('response', resolve).once('error', reject).end(body) })
    const found = Buffer.concat(await answer.toArray() as Buffer[])
    const { 'x-hash': hash, 'x-version': version } = answer.headers
    if (answer.statusCode !== 200 || hash !== hashOf(body) || found.length !== bytes) this.wrong.push(`${answer.statusCode}, ${found.length} of ${bytes} bytes`)
    else this.answers++
    this.versions.add(String(version))
  }

  async until(condition: () => boolean): Promise<void> {
    await waitFor(() => {
      if (this.wrong.length > 0) throw new Error(this.wrong.slice(0, 3).join('; '))
      return condition()
    })
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await Promise.all(this.#users)
    this.#agent.destroy()
  }
}

test.for(proxies)('behind $name ($kind), whose sessions move: no answer is lost, and none is closed by the server', { timeout: 120_000 }, async ({ name, kind, users, closes }, { skip }) => {
  const file = installed(name)
  if (file === undefined) return skip(`${name} is not installed`)
  const options = JSON.stringify({ undoWindow: 100, drainTimeout: 30_000 })
  await using generations = await Generations.start({ script: programPath('sessions.mjs'), listen: '127.0.0.1:0', env: { KIND: kind, OPTIONS: options } })
  const { proxy, front } = await startProxy(name, file, portOf(generations), kind)

  const load = new Users(front, users)
  await load.until(() => load.answers > 200)
  for (let index = 0; index < reloads; index++) {
    await generations.reload('signal')
    await load.until(() => load.versions.has(String(generations.count)))
  }
  const reports = await drained(generations)
  await load.stop()
  console.log(`${name}: ${reloads} reloads, ${load.answers} answers, ${JSON.stringify(reports.map(({ connections: { open, moved } }) => [open, moved]))} open and moved`)
  expect(load.wrong).toEqual([])
  const errors = generations.events.filter(({ event }) => event === 'sessionError').map(({ message }) => String(message))
  expect(errors.filter((message) => !(closes && message.endsWith('ECONNRESET')))).toEqual([])
  for (const { connections } of reports) {
    const { open, moved, drained: closedByProxy } = connections
    expect(connections).toMatchObject({ cut: 0, closedIdle: 0, stayed: {} })
    expect({ moved, closedByProxy }).toEqual(closes ? { moved: open - closedByProxy, closedByProxy } : { moved: open, closedByProxy: 0 })
  }
  expect(proxy.running, proxy.output).toBe(true)
})
