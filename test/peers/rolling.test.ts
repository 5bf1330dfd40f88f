/**
 * A rolling deploy: two servers behind a real balancer, HAProxy and nginx as they come, one after another stopped and started again. No
 * request is lost: a balancer repeats what was refused, and must not repeat what was accepted and reset. Skipped where they are not
 * installed.
 */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { startLoadProcess, type LoadOptions, type LoadProcess } from '@handover/load'
import { expect, onTestFinished, test } from 'vitest'
import { commandFile, statusOf } from '../helpers/built.js'
import { freePorts, get } from '../helpers/ask.js'
import { Program, programPath, waitFor } from '../helpers/program.js'
import { installed, Tool } from '../helpers/peers.js'

const hosts = ['127.0.0.11', '127.0.0.12']
const traffic: LoadOptions = { keepAlive: [{ clients: 4, thinkMs: 10 }], newConnections: { clients: 2, thinkMs: 10 }, post: [
  { clients: 6, thinkMs: 10, pauseMs: 0 }
] }

const balancers = [
  {
    name: 'haproxy',
    config: (folder: string, port: number) => `
global
  log stdout format raw local0
defaults
  log global
  mode http
  option httplog
  option dontlog-normal
  retries 3
  option redispatch 1
  timeout connect 2s
  timeout client 20s
  timeout server 20s
frontend front
  bind unix@${folder}/haproxy.sock
  default_backend back
backend back
  balance roundrobin
${hosts.map((host, index) => `  server s${index} ${host}:${port}`).join('\n')}
`,
    args: (_folder: string, config: string) => ['-db', '-f', config]
  },
  {
    name: 'nginx',
    config: (folder: string, port: number) => `
      daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log stderr crit;
      events { worker_connections 512; }
      http {
        access_log off;
        client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
        upstream server { ${hosts.map((host) => `server ${host}:${port} max_fails=0;`).join(' ')} keepalive 16; }
        server {
          listen unix:${folder}/nginx.sock;
          location / { proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; }
        }
      }`,
    args: (folder: string, config: string) => ['-p', folder, '-e', 'stderr', '-c', config]
  }
]

const ways = [
  { name: 'with the adapter', workers: 0 },
  { name: 'under handover run', workers: 1 },
  { name: 'under handover run with three workers', workers: 3 }
]

test.for(ways)('servers $name that are stopped and started one after another lose no request behind HAProxy and nginx', async ({ workers }, { skip }) => {
  const found = balancers.flatMap(({ name }) => installed(name) ?? [])
  if (found.length < balancers.length) return skip('haproxy and nginx are not both installed')
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-rolling-'))
  onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
  const ends = (it: AsyncDisposable): void => { onTestFinished(() => it[Symbol.asyncDispose]()) }
  const [port = 0] = await freePorts(1)
  const start = async (host: string): Promise<Program> => {
    const sockets = path.join(folder, host)
    mkdirSync(sockets, { mode: 0o700, recursive: true })
    const env = { LISTEN: `${host}:${port}`, HANDOVER_DIR: sockets, HANDOVER_LINGER: '500', OPTIONS: '{"linger":500}' }
    const program = workers === 0
      ? Program.start(programPath('server.mjs'), { env })
      : Program.start(commandFile, { args: ['run', '--name', 'rolled', '--workers', String(workers), programPath('kept.mjs')], env })
    ends(program)
    await waitFor(async () => {
      const status = workers > 0 ? await statusOf(path.join(sockets, 'rolled.sock')).catch(() => undefined) : undefined
      if (workers > 0 && status?.processes.filter(({ state }) => state === 'serving').length !== workers) return false
      return await get({ port, host }).then((answer) => answer.status === 200, () => false)
    })
    return program
  }
  const programs = await Promise.all(hosts.map(start))
  const loads: LoadProcess[] = []
  const tools: Tool[] = []
  for (const [index, { name, config, args }] of balancers.entries()) {
    const file = path.join(folder, `${name}.conf`)
    const front = path.join(folder, `${name}.sock`)
    writeFileSync(file, config(folder, port))
    const balancer = Tool.start(found[index]!, args(folder, file))
    ends(balancer)
    tools.push(balancer)
    await waitFor(() => get(front).then(({ status }) => status === 200, () => false))
    const load = startLoadProcess({ path: front }, traffic)
    onTestFinished(() => { load.kill() })
    loads.push(load)
  }
  const more = async (): Promise<void> => {
    await Promise.all(loads.map(async (load) => {
      let first: number | undefined
      await load.until(({ answers }) => answers >= (first ??= answers) + 200)
    }))
  }
  await more()
  for (const [index, host] of hosts.entries()) {
    // A loss says by it when it was.
    for (const load of loads) await load.mark(`the stop of server ${index}`)
    process.kill(programs[index]!.pid, 'SIGTERM')
    expect(await programs[index]!.ended).toEqual({ code: 0, signal: null })
    await start(host)
    await more()
  }
  for (const [index, load] of loads.entries()) {
    const { lost, losses, requests } = await load.stop()
    console.log(`${balancers[index]!.name}: ${requests} requests, ${lost} lost`)
    expect({ lost, losses }, tools[index]!.output).toEqual({ lost: 0, losses: [] })
  }
})
