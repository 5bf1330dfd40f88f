/**
 * Every mode of the load client at once, near and 20 ms away, over reloads with a drain of 3 s: 0 lost, and no connection is closed.
 * HANDOVER_TEST_RELOADS sets how many reloads (at most 5).
 */

import { type LoadOptions, startLoadProcess } from '@handover/load'
import { describe, expect, it } from 'vitest'
import { drained, eachClientKeptItsConnection, reload, startGenerations } from '../../helpers/peers.js'

const reloads = Math.min(5, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 5))
const roundTripMs = 20

const traffic: LoadOptions = {
  connectFirst: true,
  keepAlive: [{ clients: 5, thinkMs: 5 }, { clients: 20, thinkMs: 200 }, {
    clients: 20, thinkMs: 200, roundTripMs
  }, { clients: 40, thinkMs: 5_000, roundTripMs }],
  newConnections: { clients: 1, thinkMs: 20 },
  slow: { clients: 5 },
  post: [{ clients: 5, thinkMs: 20 }, { clients: 10, bytes: 200, pauseMs: 0, thinkMs: 50 }],
  // Answers one after the other without a pause: the next request is on its way when the answer ends.
  stream: [{ clients: 20 }, { clients: 5, chunks: 4, ms: 300 }],
  pipelined: { clients: 2, thinkMs: 20 }
}

describe.each(['http', 'fastify'])('%s under every mode of load, with a drain of 3 s', (kind) => {
  it('loses no request and closes no connection', { timeout: 300_000 }, async () => {
    await using generations = await startGenerations(kind, { OPTIONS: JSON.stringify({ undoWindow: 100, drainTimeout: 3_000 }) })
    const load = startLoadProcess(generations.targets[0]!, traffic)
    try {
      await load.until(({ kinds }) => Object.values(kinds).length === 6 && Object.values(kinds).every(({ answers }) => answers > 0), 60_000)
      await reload(generations, reloads, ['signal'], () => load.until(({ versions }) => versions.some(({ version }) => version === String(generations.count)), 60_000))
      const reports = await drained(generations)
      const result = await load.stop()
      console.log(`${kind}: ${reloads} reloads, ${result.requests} requests in every mode, ${result.lost} lost, ${result.closedByServer.total} closed`)
      expect(Object.keys(result.kinds).toSorted()).toEqual(['keep-alive', 'new', 'pipelined', 'post', 'slow', 'stream'])
      // A client of `new` opens one for each request.
      eachClientKeptItsConnection({ ...result, opened: result.opened - (result.kinds.new?.requests ?? 0), clients: result.clients - 1 })
      for (const { connections, requestsCut } of reports) expect({ cut: connections.cut, requestsCut }).toEqual({ cut: 0, requestsCut: [] })
    } finally {
      load.kill()
    }
  })
})
