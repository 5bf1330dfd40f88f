/**
 * Mostly idle clients, 20 ms away, over plain TCP and over TLS at the same time: what moving connections saves, and what TLS, which cannot
 * move, still loses in the moment in which an idle connection is closed.
 */

import { fileURLToPath } from 'node:url'
import { sleep } from '../client/clock.js'
import { Example } from '../example.js'
import { startLoadProcess } from '../client/process.js'
import { count, table } from '../table.js'
import { withCertificate } from '../certificate.js'

const clients = 1_000
const thinkMs = 15_000
const roundTripMs = 20
const reloads = 5
/** Longer than `linger` by default, so that every idle connection of a generation has gone before the next reload. */
const pauseMs = 15_000
const server = fileURLToPath(new URL('server.js', import.meta.url))

export async function benchIdle(): Promise<void> {
  await withCertificate(async ({ key, cert }) => {
    console.log(`${count(clients)} clients each, a request every ${thinkMs / 1000} s, ${roundTripMs} ms away; ${reloads} reloads, ${pauseMs / 1000} s apart; linger as it is by default.\n`)
    const rows = await Promise.all([run('plain TCP', {}), run('TLS', { TLS_KEY: key, TLS_CERT: cert })])
    console.log(table([['', 'requests', 'lost', 'connections opened', 'closed by the server', 'announced'], ...rows]))
  })
}

async function run(name: string, env: Readonly<Record<string, string>>): Promise<string[]> {
  const example = await Example.start({ script: server, version: '0', env })
  const load = startLoadProcess({ ...example.target, tls: 'TLS_KEY' in env }, { keepAlive: { clients, thinkMs, roundTripMs } })
  try {
    let pid = (await load.until(({ answers }) => answers > 0)).versions[0]!.pid || example.firstPid
    await sleep(thinkMs)
    for (let index = 1; index <= reloads; index++) {
      pid = (await example.reload(load, pid, String(index))).pid
      await sleep(pauseMs)
    }
    const { requests, lost, opened, closedByServer } = await load.stop()
    await example.end(30_000, [pid])
    return [name, count(requests), count(lost), count(opened), count(closedByServer.total), count(closedByServer.announced)]
  } finally {
    load.kill()
    await example.end(2000)
  }
}
