/** nginx and HAProxy as they are installed, between clients and a server: they keep their connections to it, and try no request twice. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { onTestFinished } from 'vitest'
import { Tool } from './peers.js'
import { waitFor } from './program.js'

/** What a proxy speaks with the server. */
export type Speaks = 'http' | 'https' | 'h2c' | 'h2'

export const proxyNames = ['nginx', 'haproxy'] as const
export type ProxyName = typeof proxyNames[number]

const locations: Readonly<Record<Speaks, string>> = {
  http: 'proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_next_upstream off;',
  https: 'proxy_pass https://server; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_next_upstream off;',
  h2c: 'grpc_pass grpc://server; grpc_next_upstream off;',
  h2: 'grpc_pass grpcs://server; grpc_next_upstream off;'
}

// One process, so that its cache of connections is one too, and so that its pid is all there is to end.
const nginx = (folder: string, front: string, back: number, speaks: Speaks): string => `
  daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log stderr warn;
  events { worker_connections 1024; }
  http {
    access_log off;
    ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
    upstream server { server 127.0.0.1:${back}; keepalive 64; keepalive_requests 100000000; keepalive_timeout 300s; }
    server {
      listen unix:${front};
      keepalive_requests 100000000; keepalive_timeout 300s;
      location / { ${locations[speaks]} }
    }
  }`

const backends: Readonly<Record<Speaks, string>> = { http: '', https: ' ssl verify none alpn http/1.1', h2c: ' proto h2', h2: ' ssl verify none alpn h2' }

// What is idle is not closed for its number or its age: every close would be the server's.
const haproxy = (_folder: string, front: string, back: number, speaks: Speaks): string => `
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
  server one 127.0.0.1:${back} pool-max-conn -1 pool-purge-delay 10m${backends[speaks]}
`

const answers = (socketPath: string): Promise<boolean> => new Promise((resolve) => {
  http.get({ socketPath, path: '/', agent: false }, (answer) => {
    answer.resume()
    resolve(answer.statusCode === 200)
  }).once('error', () => { resolve(false) })
})

/** Resolves when the server on the TCP port `back` answers through it. `front`: the Unix path that it listens on. */
export async function startProxy(name: ProxyName, file: string, back: number, speaks: Speaks): Promise<{ proxy: Tool; front: string }> {
  const folder = mkdtempSync(path.join(tmpdir(), `handover-${name}-`))
  onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
  const [front, config] = [path.join(folder, 'front.sock'), path.join(folder, 'conf')]
  writeFileSync(config, (name === 'nginx' ? nginx : haproxy)(folder, front, back, speaks))
  const proxy = Tool.start(file, name === 'nginx' ? ['-p', folder, '-e', 'stderr', '-c', config] : ['-db', '-f', config])
  onTestFinished(() => proxy[Symbol.asyncDispose]())
  await waitFor(() => answers(front)).catch((error: unknown) => { throw new Error(`${String(error)}\n${proxy.output}`) })
  return { proxy, front }
}
