/**
 * Several workers of one app: how connections spread over them, more and fewer of them, and what else than one TCP port they can share.
 */

import { once } from 'node:events'
import http from 'node:http'
import path from 'node:path'
import { type LoadOptions, startLoadProcess } from '@handover/load'
import { describe, expect, test } from 'vitest'
import { ask, freePorts, get } from '../../helpers/ask.js'
import { descriptorsOf, programPath, waitFor } from '../../helpers/program.js'
import { KeptApp } from '../../helpers/kept-app.js'

const kept = programPath('kept.mjs')
const connections = 200

/** How many of so many keep-alive connections each process has; the connections stay open until `close`. */
async function spread(port: number, count = connections): Promise<{ counts: Map<number, number>; close(): void }> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity })
  const pids = await Promise.all(Array.from({ length: count }, async () => {
    const [response] = await once(http.get({ agent, host: '127.0.0.1', port }), 'response') as [http.IncomingMessage]
    response.resume()
    await once(response, 'end')
    return Number(response.headers['x-pid'])
  }))
  const counts = new Map<number, number>()
  for (const pid of pids) counts.set(pid, (counts.get(pid) ?? 0) + 1)
  return { counts, close: () => { agent.destroy() } }
}

const shown = (counts: ReadonlyMap<number, number>): string => [...counts.values()].sort((a, b) => a - b).join(', ')

const env = { HANDOVER_LINGER: '1500' }

const traffic: LoadOptions = {
  connectFirst: true,
  keepAlive: [{ clients: 10, thinkMs: 20 }, { clients: 40, thinkMs: 500 }],
  newConnections: { clients: 2, thinkMs: 10 },
  slow: { clients: 3, thinkMs: 20 },
  post: { clients: 3, thinkMs: 20 },
  stream: { clients: 2, thinkMs: 20 }
}

test('what one worker opens late can be opened by the others as well, and is covered by them when that one dies', async () => {
  const [port = 0] = await freePorts(1)
  await using app = await KeptApp.start(programPath('unaware.cjs'), {
    workers: 2, run: ['--spare', 'off'], env: { CASE: 'late', LATE_PORT: String(port), LATE_PATH: '$FOLDER/late.sock' }
  })
  const opened = (pid: number): number => app.program.events.filter(({ event, pid: by }) => event === 'opened' && by === pid).length
  const [first, second] = (await app.servers()).map(({ pid }) => pid) as [number, number]
  const before = descriptorsOf(second).size
  process.kill(first, 'SIGUSR2')
  await waitFor(() => opened(first) === 2 && descriptorsOf(second).size >= before + 2)
  process.kill(second, 'SIGUSR2')
  await waitFor(() => opened(second) === 2)
  const answering = async (where: Parameters<typeof get>[0]): Promise<Set<number>> =>
    new Set((await Promise.all(Array.from({ length: 60 }, () => get(where)))).map(({ body }) => Number(body)))
  const places = [{ port, host: '127.0.0.1' }, `${app.folder}/late.sock`]
  expect(await answering(places[0]!)).toEqual(new Set([first, second]))
  process.kill(first, 'SIGKILL')
  await waitFor(() => !app.left.includes(first))
  for (const place of places) expect(await answering(place)).toEqual(new Set([second]))
  expect(app.program.events.filter(({ event }) => event === 'error')).toEqual([])
  expect(app.stderr).not.toContain('was removed or replaced')
})

describe('200 keep-alive connections and 4 workers', () => {
  test('no worker has fewer than half of the mean or more than twice as many, before a reload and after it', async () => {
    await using app = await KeptApp.start(kept, { workers: 4 })
    for (const round of ['at first', 'after a reload']) {
      const { counts, close } = await spread(app.port)
      const pids = (await app.servers()).map(({ pid }) => pid)
      console.log(`${connections} connections over 4 workers, ${round}: ${shown(counts)}`)
      expect(new Set(counts.keys())).toEqual(new Set(pids))
      for (const count of counts.values()) {
        expect(count).toBeGreaterThanOrEqual(connections / 4 / 2)
        expect(count).toBeLessThanOrEqual(connections / 4 * 2)
      }
      close()
      if (round === 'at first') expect(await app.reload('--bake', '0', '--parallel')).toMatchObject({ ok: true })
    }
    expect(await app.stop()).toEqual({ code: 0, signal: null })
  })

  test('with --shared all are answered, by whom is chance', async () => {
    await using app = await KeptApp.start(kept, { workers: 4, run: ['--shared'] })
    const { counts, close } = await spread(app.port)
    console.log(`${connections} connections over 4 workers of one queue (--shared): ${shown(counts)}`)
    expect([...counts.values()].reduce((sum, count) => sum + count, 0)).toBe(connections)
    close()
    expect(await app.reload('--bake', '0', '--parallel')).toMatchObject({ ok: true })
    const after = await spread(app.port)
    expect([...after.counts.values()].reduce((sum, count) => sum + count, 0)).toBe(connections)
    after.close()
  })
})

test('fewer and then more workers by a reload lose nothing under load, and close no connection that was not told before', async () => {
  await using app = await KeptApp.start(kept, { workers: 4, env })
  const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, traffic)
  try {
    await load.until(({ versions }) => versions.length === 4)
    const answering = async (count: number): Promise<void> => {
      const pids = (await app.serving(count)).map(({ pid }) => pid)
      await load.until(({ versions }) => pids.every((pid) => versions.some((seen) => seen.pid === pid)))
    }
    expect(await app.reload('--bake', '0', '--workers', '2')).toMatchObject({ ok: true, switched: { length: 2 } })
    await answering(2)
    // The two that leave go on with what they have; a new client never gets there.
    const { counts, close } = await spread(app.port)
    expect(new Set(counts.keys())).toEqual(new Set((await app.servers()).map(({ pid }) => pid)))
    console.log(`${connections} connections over 2 workers that were 4: ${shown(counts)}`)
    await waitFor(async () => (await app.status()).processes.length === 2)
    expect((await app.status()).keeper).toMatchObject({ workers: 2, down: [], crashes: 0 })
    // What the load process says of itself is a moment old.
    const { requests: then } = load.stats()
    await load.until(({ requests }) => requests > then + 200)
    const fewer = load.stats()

    expect(await app.reload('--bake', '0', '--workers', '5')).toMatchObject({ ok: true, switched: { length: 5 } })
    await answering(5)
    const more = await spread(app.port)
    expect(more.counts.size).toBe(5)
    console.log(`${connections} connections over 5 workers that were 2: ${shown(more.counts)}`)
    const { requests, lost, losses, closedByServer } = await load.stop()
    console.log(`4 workers to 2 to 5: ${requests} requests, ${lost} lost, ${closedByServer.total} closed by the server, ${closedByServer.announced} of them announced (all of them as 4 became 2)`)
    expect({ lost, losses }).toEqual({ lost: 0, losses: [] })
    expect(closedByServer.announced).toBe(closedByServer.total)
    expect(closedByServer.total).toBe(fewer.closedByServer.total)
    close()
    more.close()
  } finally {
    load.kill()
  }
  expect(await app.stop()).toEqual({ code: 0, signal: null })
})

test('what would come to workers that leave is answered by the others while those still drain', async () => {
  await using app = await KeptApp.start(kept, { workers: 3 })
  const agent = new http.Agent({ maxSockets: Infinity })
  try {
    // In every worker some, for longer than this test.
    for (let count = 0; count < 60; count++) http.get({ agent, host: '127.0.0.1', port: app.port, path: '/slow?ms=600000' }).on('error', () => undefined)
    await waitFor(async () => {
      const { processes } = await app.status()
      return processes.every(({ requests }) => requests.inFlight > 0) &&
        processes.reduce((sum, { requests }) => sum + requests.inFlight, 0) === 60
    })
    expect(await app.reload('--bake', '0', '--workers', '1')).toMatchObject({ ok: true })
    const [server] = await app.serving(1)
    const { counts, close } = await spread(app.port, 100)
    expect([...counts]).toEqual([[server!.pid, 100]])
    close()
    expect((await app.status()).processes.filter(({ state }) => state === 'draining').length).toBeGreaterThanOrEqual(2)
  } finally {
    agent.destroy()
  }
})

test('a worker that somebody sends SIGTERM drains, and the next one is started at once: no request is lost', async () => {
  await using app = await KeptApp.start(kept, { workers: 2, env })
  const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, traffic)
  try {
    await load.until(({ versions }) => versions.length === 2)
    const [, leaving] = await app.servers()
    process.kill(leaving!.pid, 'SIGTERM')
    await waitFor(async () => (await app.servers()).filter(({ pid }) => pid !== leaving!.pid).length === 2)
    const next = (await app.servers()).find(({ slot }) => slot === 1)!
    await load.until(({ versions }) => versions.some(({ pid }) => pid === next.pid))
    await waitFor(async () => (await app.status()).processes.length === 2)
    const { lost, losses, closedByServer } = await load.stop()
    expect({ lost, losses }).toEqual({ lost: 0, losses: [] })
    expect(closedByServer.announced).toBe(closedByServer.total)
    expect((await app.status()).keeper).toMatchObject({ crashes: 0, down: [] })
    expect(app.stderr).toContain(`process ${leaving!.pid} (generation 1) was stopped by somebody else; the next one is started`)
  } finally {
    load.kill()
  }
})

test('a Unix path, a UDP port and two TCP ports are served by 2 workers, over a reload and a crash', async () => {
  const [first = 0, second = 0, udp = 0] = await freePorts(3)
  await using all = await KeptApp.start(kept, { workers: 2, env: { LISTEN: `127.0.0.1:${first},127.0.0.1:${second},unix:$FOLDER/app.sock,udp:127.0.0.1:${udp}` } })
  const file = path.join(all.folder, 'app.sock')
  const everywhere = async (): Promise<void> => {
    const pids = new Set((await all.serving(2)).map(({ pid }) => pid))
    for (const place of [file, { port: first }, { port: second }]) {
      const seen = new Set<number>()
      await waitFor(async () => {
        const { pid } = JSON.parse((await get(place, '/who')).body) as { pid: number }
        expect(pids).toContain(pid)
        seen.add(pid)
        // Of one queue any process may take all.
        return typeof place === 'string' || seen.size === 2
      })
    }
    expect(pids).toContain(await ask('udp4', { port: udp }))
  }
  await everywhere()
  const before = await all.servers()
  expect(before.map(({ listeners }) => listeners.length)).toEqual([4, 4])
  expect(await all.reload('--bake', '0')).toMatchObject({ ok: true })
  await everywhere()
  const [, victim] = await all.servers()
  process.kill(victim!.pid, 'SIGKILL')
  await waitFor(async () => (await all.status()).keeper.crashes === 1)
  await everywhere()
  expect((await all.servers()).map(({ listeners }) => listeners.length)).toEqual([4, 4])
  expect(await all.stop()).toEqual({ code: 0, signal: null })
  await expect(get(file)).rejects.toThrow(/ENOENT/)
})

test('port 0 is one port for 2 workers, and stays it over a reload', async () => {
  await using app = await KeptApp.start(kept, { workers: 2, env: { PORT: '0' } })
  const [one, two] = await app.servers()
  expect(one!.listeners).toHaveLength(1)
  expect(two!.listeners).toEqual(one!.listeners)
  const port = Number(/:(\d+)$/.exec(one!.listeners[0]!)![1])
  const { counts, close } = await spread(port, 40)
  expect(counts.size).toBe(2)
  close()
  expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
  const after = await app.servers()
  expect(after.map(({ listeners }) => listeners)).toEqual([one!.listeners, one!.listeners])
  const again = await spread(port, 40)
  expect(new Set(again.counts.keys())).toEqual(new Set(after.map(({ pid }) => pid)))
  again.close()
})
