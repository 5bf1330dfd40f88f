/**
 * Behind a reverse proxy that keeps its connections to the server: nginx and HAProxy, as they are installed. Neither may try a request
 * twice, so that whatever goes wrong behind them is a 502 or 503 to the strict client. Each speaks plain HTTP with the server, and HTTPS. A
 * proxy that is not installed is skipped.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type LoadOptions, startLoadProcess } from '@handover/load'
import { expect, onTestFinished, test } from 'vitest'
import { waitFor } from '../helpers/program.js'
import {
  accepted, drained, everyConnectionMoved, installed, nothingLostNothingClosed, portOf, reload, startGenerations, Tool
} from '../helpers/peers.js'

const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))
const clients = 40

const thinking = [{ clients: 4 }, { clients: 16, thinkMs: 30 }]
const traffic: LoadOptions = { keepAlive: thinking, post: thinking.map((group) => ({ ...group, pauseMs: 0 })) }

interface Proxy {
  readonly name: string
  /** Its configuration: it listens on the Unix path `front` and keeps its connections to the TCP port `back`. `secure`: over TLS. */
  config(folder: string, front: string, back: number, secure: boolean): string
  args(folder: string, config: string): string[]
}

const proxies: Proxy[] = [
  {
    name: 'nginx',
    // One process, so that its cache of connections is one too, and so that its pid is all there is to end.
    config: (folder, front, back, secure) => `
      daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log stderr warn;
      events { worker_connections 1024; }
      http {
        access_log off;
        client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
        upstream server { server 127.0.0.1:${back}; keepalive 64; keepalive_requests 100000000; keepalive_timeout 300s; }
        server {
          listen unix:${front};
          keepalive_requests 100000000; keepalive_timeout 300s;
          location / { proxy_pass http${secure ? 's' : ''}://server; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_next_upstream off; }
        }
      }`,
    args: (folder, config) => ['-p', folder, '-e', 'stderr', '-c', config]
  },
  {
    name: 'haproxy',
    config: (_folder, front, back, secure) => `
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
  # What is idle is not closed for its number or its age: every close would be the server's.
  server one 127.0.0.1:${back} pool-max-conn -1 pool-purge-delay 10m${secure ? ' ssl verify none alpn http/1.1' : ''}
`,
    args: (_folder, config) => ['-db', '-f', config]
  }
]

/** So many requests at the same time that the proxy needs a connection to the server for each. */
async function atOnce(socketPath: string, count: number): Promise<void> {
  const agent = new http.Agent({ maxSockets: Infinity })
  await Promise.all(Array.from({ length: count }, () => new Promise<void>((resolve, reject) => {
    http.get({ socketPath, path: '/slow?ms=1500', agent }, (answer) => { answer.resume().once('end', resolve) }).once('error', reject)
  })))
}

const answers = (socketPath: string): Promise<boolean> => new Promise((resolve) => {
  http.get({ socketPath, path: '/', agent: false }, (answer) => {
    answer.resume()
    resolve(answer.statusCode === 200)
  }).once('error', () => { resolve(false) })
})

const runs = proxies.flatMap((proxy) => ['http', 'https'].map((kind) => ({ ...proxy, kind })))

test.for(runs)('behind $name ($kind): no 502 or 503, nothing lost, and the connections to the server stay the same over all reloads', { timeout: 300_000 }, async ({ name, config, args, kind }, { skip }) => {
  const file = installed(name)
  if (file === undefined) return skip(`${name} is not installed`)
  const folder = mkdtempSync(path.join(tmpdir(), `handover-${name}-`))
  onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
  const front = path.join(folder, 'front.sock')

  await using generations = await startGenerations(kind)
  writeFileSync(path.join(folder, 'conf'), config(folder, front, portOf(generations), kind === 'https'))
  await using proxy = Tool.start(file, args(folder, path.join(folder, 'conf')))
  await waitFor(() => answers(front)).catch((error: unknown) => { throw new Error(`${String(error)}\n${proxy.output}`) })
  while (accepted(generations) < clients) await atOnce(front, clients)
  const before = accepted(generations)

  const load = startLoadProcess({ path: front }, traffic)
  onTestFinished(() => { load.kill() })
  await load.until((stats) => stats.answers > 200)
  await reload(generations, reloads, ['signal'], () => load.until(({ versions }) => versions.some(({ version }) => version === String(generations.count))))
  await drained(generations)
  const result = await load.stop()

  console.log(`${name} (${kind}): ${reloads} reloads, ${result.requests} requests, ${result.lost} lost, ${result.closedByServer.total} closed, ` +
    `connections to the server: ${before} before the first reload, ${accepted(generations)} in total`)
  nothingLostNothingClosed(result)
  expect(accepted(generations)).toBe(before)
  everyConnectionMoved(generations, before)
  expect(proxy.running, proxy.output).toBe(true)
})
