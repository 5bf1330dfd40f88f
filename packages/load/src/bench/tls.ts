/**
 * What it costs that TLS connections can move. CPU of a request and of a handshake while the addon counts records, beside a server where it
 * does not; and a connection that has moved, whose records are the addon's, beside Node's own TLS. Then memory of an open connection.
 *
 * All servers run at the same time, and rounds go through them forwards and backwards. CPU time is that of the servers' process, which is
 * the same for all: two processes of the same program differ by some percent. Node's own is there twice, which shows the noise.
 */

import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import https from 'node:https'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { nowMs } from '../client/clock.js'
import { count, median, table } from '../table.js'
import { withCertificate } from '../certificate.js'
import type { TlsServerSays, TlsSide } from './tls-server.js'

const rounds = 16
const measuredMs = 500
const clients = 16
const open = 1000
const program = fileURLToPath(new URL('tls-server.js', import.meta.url))
const sides = ['node', 'watched', 'moved'] as const
const compared = ['node', 'node', 'watched', 'moved'] as const
const names: Readonly<Record<TlsSide, string>> = { node: 'Node', watched: 'Node, watched', moved: 'moved' }

interface Server {
  readonly side: TlsSide
  readonly port: number
  readonly process: ChildProcess
}

interface Round {
  readonly cpuUs: number
  readonly perSecond: number
}

async function start(sides: readonly TlsSide[], { key, cert }: { readonly key: string; readonly cert: string }): Promise<Server[]> {
  const process = fork(program, [key, cert, ...sides], { execArgv: ['--expose-gc'], stdio: 'inherit' })
  const [{ ports }] = await once(process, 'message') as [TlsServerSays]
  return sides.map((side, index) => ({ side, port: ports![index]!, process }))
}

async function ask({ process }: Server): Promise<TlsServerSays> {
  process.send('ask')
  return ((await once(process, 'message')) as [TlsServerSays])[0]
}

const target = ({ port }: Server): { host: string; port: number; rejectUnauthorized: boolean } =>
  ({ host: '127.0.0.1', port, rejectUnauthorized: false })

async function request(server: Server, bytes: number, agent: https.Agent): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    https.get({ ...target(server), path: `/${bytes}`, agent }, (response) => {
      let had = 0
      response.on('data', (chunk: Buffer) => { had += chunk.length })
      response.on('end', () => { if (had === bytes) resolve(); else reject(new Error(`${had} bytes came, of ${bytes}`)) })
    }).on('error', reject)
  })
}

async function handshake(server: Server): Promise<void> {
  const socket = tls.connect(target(server))
  await once(socket, 'secureConnect')
  socket.destroy()
}

/** A closed loop of clients. */
async function measure(server: Server, once: () => Promise<void>): Promise<Round> {
  const [before, from] = [await ask(server), nowMs()]
  let done = 0
  await Promise.all(Array.from({ length: clients }, async () => {
    for (; nowMs() < from + measuredMs; done++) await once()
  }))
  const ms = nowMs() - from
  const { cpuUs } = await ask(server)
  return { cpuUs: (cpuUs - before.cpuUs) / done, perSecond: done / ms * 1000 }
}

async function compare(what: string, servers: readonly Server[], run: (server: Server) => Promise<Round>): Promise<string[][]> {
  const found = new Map<Server, Round[]>(servers.map((server) => [server, []]))
  for (const server of servers) await run(server) // for the optimizing compiler; not counted
  for (let round = 0; round < rounds; round++) {
    for (const server of round % 2 === 0 ? servers : servers.toReversed()) found.get(server)!.push(await run(server))
  }
  const first = found.get(servers[0]!)!
  const ratio = (of: readonly Round[], part: keyof Round): string =>
    `${median(of.map((round, at) => round[part] / first[at]![part] * 100)).toFixed(1)} %`
  return [...found].map(([{ side }, of], index) => [
    what, index > 0 && side === 'node' ? `${names.node}, again` : names[side], median(of.map(({ cpuUs }) => cpuUs)).toFixed(1),
    ratio(of, 'cpuUs'), count(median(of.map(({ perSecond }) => perSecond))), ratio(of, 'perSecond')
  ])
}

export async function benchTls(): Promise<void> {
  await withCertificate(async (files) => {
    const servers = await start(compared, files)
    try {
      const rows: string[][] = []
      for (const bytes of [10, 1000, 100_000]) {
        const agent = new https.Agent({ keepAlive: true, maxSockets: clients })
        rows.push(...await compare(`${count(bytes)} bytes`, servers, (server) => measure(server, () => request(server, bytes, agent))))
        agent.destroy()
      }
      rows.push(...await compare('a handshake', servers.slice(0, 3), (server) => measure(server, () => handshake(server))))
      console.log(`${clients} clients, ${rounds} rounds of ${measuredMs} ms on each server, in turns; ratios are the middle of pairs:\n`)
      console.log(table([['', 'TLS of', 'CPU µs', 'of Node\'s', 'per second', 'of Node\'s'], ...rows]))
    } finally {
      servers[0]!.process.disconnect()
    }
    console.log(`\nMemory of the server for ${count(open)} idle connections:\n`)
    console.log(table([['TLS of', 'KB a connection'], ...await memory(files)]))
  })
}

async function memory(files: { readonly key: string; readonly cert: string }): Promise<string[][]> {
  const rows: string[][] = []
  for (const side of sides) {
    const found: number[] = []
    for (let time = 0; time < 3; time++) {
      const server = (await start([side], files))[0]!
      const agent = new https.Agent({ keepAlive: true, maxSockets: open })
      const fill = (): Promise<unknown> => Promise.all(Array.from({ length: open }, () => request(server, 10, agent)))
      await request(server, 10, agent)
      const before = await ask(server)
      await fill()
      const { rss } = await ask(server)
      found.push((rss - before.rss) / open / 1000)
      agent.destroy()
      server.process.disconnect()
    }
    rows.push([names[side], median(found).toFixed(1)])
  }
  return rows
}
