/**
 * Sessions of HTTP/2 that come from a reverse proxy, and move: nginx (grpc_pass) and HAProxy (proto h2). Neither looks headers up in a
 * table, nor says that the table has become smaller, as a client must that is told so. A proxy that is not installed is skipped.
 */

import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { Generations } from '../helpers/generations.js'
import { drained, installed, portOf, Tool } from '../helpers/peers.js'
import { programPath, waitFor } from '../helpers/program.js'

const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))

interface Proxy {
  readonly name: string
  /** HAProxy has one session for all of them, which should have a gap. */
  readonly users: number
  /** nginx itself closes a connection that is idle when something comes, be it only a ping, and opens the next. */
  readonly closes: boolean
  /** It listens on the Unix path `front` and speaks HTTP/2 with the TCP port `back`. */
  config(folder: string, front: string, back: number): string
  args(folder: string, config: string): string[]
}

const proxies: Proxy[] = [
  {
    name: 'nginx',
    users: 12,
    closes: true,
    config: (folder, front, back) => `
      daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log stderr warn;
      events { worker_connections 1024; }
      http {
        access_log off;
        client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
        upstream server { server 127.0.0.1:${back}; keepalive 64; keepalive_requests 100000000; keepalive_timeout 300s; }
        server {
          listen unix:${front};
          keepalive_requests 100000000; keepalive_timeout 300s;
          location / { grpc_pass grpc://server; grpc_next_upstream off; }
        }
      }`,
    args: (folder, config) => ['-p', folder, '-e', 'stderr', '-c', config]
  },
  {
    name: 'haproxy',
    users: 3,
    closes: false,
    config: (_folder, front, back) => `
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 30s
  timeout client 300s
  timeout server 60s
  timeout http-keep-alive 300s
  retries 0
  http-reuse always
frontend front
  bind unix@${front}
  default_backend back
backend back
  server one 127.0.0.1:${back} proto h2 pool-max-conn -1 pool-purge-delay 10m
`,
    args: (_folder, config) => ['-db', '-f', config]
  }
]

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

const opens = (socketPath: string): Promise<boolean> => new Promise((resolve) => {
  http.get({ socketPath, path: '/', agent: false }, (answer) => {
    answer.resume()
    resolve(answer.statusCode === 200)
  }).once('error', () => { resolve(false) })
})

test.for(proxies)('behind $name, whose sessions move: no answer is lost, and none is closed by the server', { timeout: 120_000 }, async ({ name, users, closes, config, args }, { skip }) => {
  const file = installed(name)
  if (file === undefined) return skip(`${name} is not installed`)
  const folder = mkdtempSync(path.join(tmpdir(), `handover-${name}-`))
  onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
  const front = path.join(folder, 'front.sock')
  const options = JSON.stringify({ undoWindow: 100, drainTimeout: 30_000 })
  await using generations = await Generations.start({ script: programPath('sessions.mjs'), listen: '127.0.0.1:0', env: { KIND: 'h2c', OPTIONS: options } })
  writeFileSync(path.join(folder, 'conf'), config(folder, front, portOf(generations)))
  await using proxy = Tool.start(file, args(folder, path.join(folder, 'conf')))
  await waitFor(() => opens(front)).catch((error: unknown) => { throw new Error(`${String(error)}\n${proxy.output}`) })

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
