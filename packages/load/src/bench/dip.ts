/**
 * What clients notice of a reload: the requests that are answered in the worst 100 ms from the signal on, as a share of the middle 100 ms
 * before it; with clients of several kinds (dip-clients.ts). Handover without a keeper and under one, node:cluster with a
 * rolling restart, nginx and HAProxy where they are installed, a server beside which a Node boots, and one where nothing happens, in turns.
 *
 * The clients are in this process, and take a part of the same cores: read the rows beside each other. nginx and HAProxy answer by
 * themselves, and their new processes have no program to load.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from '../example.js'
import { median, table } from '../table.js'
import { untilReloadedOnce } from './compiled-form.js'
import { Clients, manners, type Kind } from './dip-clients.js'
import { spareIsReady } from './spare-is-ready.js'

const rounds = 5
const [windowMs, steadyMs] = [100, 2_000]
/** From the signal on, and after the first answer of the new process; nginx and HAProxy do not say who answers. */
const [reloadMs, afterMs, mostMs] = [1_500, 500, 10_000]
const cli = fileURLToPath(new URL('../../../cli/bin/handover.js', import.meta.url))
const core = JSON.stringify(createRequire(import.meta.url).resolve('@handover/core'))

interface Contender {
  readonly port: number
  readonly reload: () => void
  /** There is a spare, which the keeper starts some time after the last reload. */
  readonly isReady?: () => boolean
  readonly end: () => Promise<unknown>
}

/** Answers per window, before the signal and from it on. */
async function answers(
  { port, reload }: Contender, kind: Kind, saysPid: boolean
): Promise<{ steady: number; worst: number; lost: number }> {
  const clients = new Clients(port, kind, windowMs)
  await sleep(steadyMs)
  const from = clients.window
  const [before, signalled] = [clients.answering, performance.now()]
  reload()
  while (saysPid && clients.answering === before && performance.now() - signalled < mostMs) await sleep(10)
  await sleep(Math.max(afterMs, signalled + reloadMs - performance.now()))
  const to = clients.window
  clients.end()
  const of = (first: number, last: number): number[] => Array.from({ length: last - first }, (_, at) => clients.windows[first + at] ?? 0)
  return { steady: median(of(5, from)), worst: Math.min(...of(from, to)), lost: clients.lost }
}

async function started(child: ChildProcess, port: number, reload: () => void): Promise<Contender> {
  const ended = once(child, 'exit')
  for (;;) {
    const socket = net.connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      break
    } catch {
      if (child.exitCode !== null) throw new Error(`it has ended: ${child.exitCode}`)
      await sleep(50)
    } finally {
      socket.destroy()
    }
  }
  return { port, reload, end: async () => { child.kill(); await ended } }
}

const server = `require('http').createServer((request, response) => {
  const answer = () => { response.end(String(process.pid)) }
  if (request.method === 'POST') request.resume().on('end', answer)
  else answer()
})`
const expressFile = JSON.stringify(createRequire(import.meta.url).resolve('express'))
const express = `require(${expressFile})().get('/', (request, response) => { response.send(String(process.pid)) })`

/** It has booted for long when it listens: what is left is the switch. */
const bootedBefore = `({ listen: (...where) => { setTimeout(() => ${server}.listen(...where), 1_000) } })`

/** The new process answers requests of its own before it serves. */
const warmed = { HANDOVER_WARM_UP: '/' }

/** The newest process says its pid. */
async function startPlain(folder: string, more: NodeJS.ProcessEnv = {}): Promise<Contender> {
  const [port, file] = [await freePort(), path.join(folder, 'plain.cjs')]
  writeFileSync(file, `require(${core}).handover(${server}).listen(${port}, '127.0.0.1', () => { console.log(process.pid) })`)
  const env = { ...process.env, HANDOVER_DIR: folder, HANDOVER_UNDO_WINDOW: '0', NODE_OPTIONS: '', ...more }
  const child = spawn(process.execPath, [file], { env, stdio: ['ignore', 'pipe', 'ignore'] })
  let pid = 0
  child.stdout.setEncoding('utf8').on('data', (text: string) => { pid = Number(text.trim()) })
  const ended = once(child.stdout, 'close')
  const contender = await started(child, port, () => { process.kill(pid, 'SIGHUP') })
  await untilReloadedOnce(folder, contender.reload)
  return { ...contender, end: async () => { process.kill(pid); await ended } }
}

async function startKept(folder: string, app = server, more: NodeJS.ProcessEnv = {}): Promise<Contender> {
  const [port, file] = [await freePort(), path.join(folder, 'kept.cjs')]
  writeFileSync(file, `${app}.listen(${port}, '127.0.0.1')`)
  const env = { ...process.env, HANDOVER_DIR: folder, HANDOVER_UNDO_WINDOW: '0', NODE_OPTIONS: '', ...more }
  const child = spawn(process.execPath, [cli, 'run', '--name', 'dip', file], { env, stdio: 'ignore' })
  return { ...await started(child, port, () => { child.kill('SIGHUP') }), isReady: () => spareIsReady('dip', env) }
}

async function startCluster(folder: string, app = server): Promise<Contender> {
  const [port, file] = [await freePort(), path.join(folder, 'cluster.cjs')]
  writeFileSync(file, `
    const cluster = require('cluster')
    if (!cluster.isPrimary) ${app}.listen(${port}, '127.0.0.1')
    else {
      let serving = cluster.fork()
      process.on('SIGHUP', () => {
        const next = cluster.fork()
        next.once('listening', () => { serving.disconnect(); serving = next })
      })
    }`)
  const child = spawn(process.execPath, [file], { stdio: 'ignore' })
  return await started(child, port, () => { child.kill('SIGHUP') })
}

/** Nothing is reloaded: `happens` is done instead. */
async function startAlone(folder: string, happens: () => void = () => undefined): Promise<Contender> {
  const [port, file] = [await freePort(), path.join(folder, 'alone.cjs')]
  writeFileSync(file, `${server}.listen(${port}, '127.0.0.1')`)
  const child = spawn(process.execPath, [file], { stdio: 'ignore' })
  return await started(child, port, happens)
}

async function startNginx(folder: string): Promise<Contender> {
  const [port, file] = [await freePort(), path.join(folder, 'nginx.conf')]
  writeFileSync(file, `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log /dev/null;
    events { worker_connections 256; }
    http { access_log off; keepalive_requests 1000000; client_body_temp_path ${folder}; proxy_temp_path ${folder};
      fastcgi_temp_path ${folder}; uwsgi_temp_path ${folder}; scgi_temp_path ${folder};
      server { listen 127.0.0.1:${port}; return 200 "ok"; } }`)
  const child = spawn('nginx', ['-p', folder, '-c', file], { stdio: 'ignore' })
  return await started(child, port, () => { child.kill('SIGHUP') })
}

async function startHaproxy(
  folder: string, answer = 'http-request return status 200 content-type text/plain string ok', more = ''
): Promise<Contender> {
  const [port, file] = [await freePort(), path.join(folder, 'haproxy.cfg')]
  writeFileSync(file, `global
  nbthread 1
  stats socket ${folder}/haproxy.sock expose-fd listeners
defaults
  mode http
  timeout client 10s
  timeout http-request 10s
  timeout connect 10s
  timeout server 10s
frontend dip
  bind 127.0.0.1:${port}
  ${answer}
${more}`)
  const child = spawn('haproxy', ['-W', '-db', '-f', file], { stdio: 'ignore' })
  return await started(child, port, () => { child.kill('SIGUSR2') })
}

/** What any reload costs that boots a Node when it is asked for. */
const bootNode = (): void => { spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }) }

/** As it is in front of a Node server, which is not reloaded. */
async function startProxy(folder: string): Promise<Contender> {
  const behind = await startAlone(folder)
  const proxy = await startHaproxy(folder, 'default_backend node', `backend node\n  server node 127.0.0.1:${behind.port}\n`)
  return { ...proxy, end: async () => { await Promise.all([proxy.end(), behind.end()]) } }
}

interface Candidate {
  readonly start: (folder: string) => Promise<Contender>
  readonly needs?: string
  /** Its answers do not show that another process gives them. */
  readonly isSilent?: true
  /** Not only for clients that always ask. */
  readonly forAll?: true
}

const contenders: Readonly<Record<string, Candidate>> = {
  'handover, plain': { start: startPlain, forAll: true },
  'handover, plain, warmUp': { start: async (folder) => await startPlain(folder, warmed), forAll: true },
  'handover run': { start: startKept, forAll: true },
  'handover run, booted before': { start: async (folder) => await startKept(folder, bootedBefore) },
  'handover run, warmUp': { start: async (folder) => await startKept(folder, server, warmed), forAll: true },
  'node:cluster': { start: startCluster },
  'handover run, Express': { start: async (folder) => await startKept(folder, express) },
  'handover run, Express, warmUp': { start: async (folder) => await startKept(folder, express, warmed) },
  'node:cluster, Express': { start: async (folder) => await startCluster(folder, express) },
  'nginx': { start: startNginx, needs: 'nginx', isSilent: true },
  'haproxy': { start: startHaproxy, needs: 'haproxy', isSilent: true },
  'haproxy, in front of Node': { start: startProxy, needs: 'haproxy', isSilent: true, forAll: true },
  'no reload, a Node boots': { start: async (folder) => await startAlone(folder, bootNode), isSilent: true },
  'no reload': { start: startAlone, isSilent: true, forAll: true }
}

export async function benchDip(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  const running = new Map<string, Contender>()
  const rows: string[][] = []
  try {
    for (const [name, { start, needs }] of Object.entries(contenders)) {
      if (needs !== undefined && spawnSync(needs, ['-v']).error) {
        console.log(`${name} is left out: it is not installed`)
        continue
      }
      const own = path.join(folder, name.replace(/\W+/g, '-'))
      mkdirSync(own, { mode: 0o700 })
      running.set(name, await start(own))
    }
    for (const kind of Object.keys(manners) as Kind[]) {
      const shares = new Map<string, number[]>()
      const lost = new Map<string, number>()
      for (let round = 0; round < rounds; round++) {
        for (const [name, contender] of running) {
          if (!contenders[name]!.forAll && !['keep-alive', 'new connections'].includes(kind)) continue
          // Of all: the boot of another one's spare would fall into this measurement.
          for (const { isReady } of running.values()) while (isReady?.() === false) await sleep(1_000)
          const found = await answers(contender, kind, !contenders[name]!.isSilent)
          shares.set(name, [...shares.get(name) ?? [], 100 * found.worst / found.steady])
          lost.set(name, (lost.get(name) ?? 0) + found.lost)
          await sleep(1_500) // for what drains
        }
      }
      rows.push(...[...shares].map(([name, all]) => [
        name, kind, ...[median(all), Math.min(...all), Math.max(...all)].map((share) => `${Math.round(share)} %`), String(lost.get(name))
      ]))
    }
  } finally {
    for (const { end } of running.values()) await end()
    rmSync(folder, { recursive: true, force: true })
  }
  console.log(`\nWorst ${windowMs} ms around a reload, as a share of steady; middle, lowest and highest of ${rounds} reloads:\n`)
  console.log(table([['', '', 'middle', 'lowest', 'highest', 'lost'], ...rows], [0, 1]))
}
