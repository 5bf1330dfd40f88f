/**
 * The server of `bench drain`: it answers no request. In its drain it measures its CPU time while nothing happens, and the longest stall of
 * its event loop while the deadline cuts. It writes both to stderr, as a line `bench drain {json}`.
 */

import http from 'node:http'
import { handover } from '@handover/core'
import { drainMs, type DrainLine } from './drain.js'

const tickMs = 5
/** Until then the drain begins: all connections are looked at, and idle ones move. */
const settledMs = 1_000

const print = (line: DrainLine): void => { process.stderr.write(`bench drain ${JSON.stringify(line)}\n`) }

let waiting = 0
const server = handover(http.createServer(() => { print({ waiting: ++waiting }) }))

function cpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1_000
}

handover.events.on('state', ({ to }) => {
  if (to !== 'draining') return
  let [cpuShare, stallMs, last] = [NaN, 0, 0]
  setTimeout(() => {
    const [from, cpuFrom] = [performance.now(), cpuMs()]
    setTimeout(() => {
      last = performance.now()
      cpuShare = (cpuMs() - cpuFrom) / (last - from)
      setInterval(() => {
        const now = performance.now()
        stallMs = Math.max(stallMs, now - last - tickMs)
        last = now
      }, tickMs).unref()
    }, drainMs - 2 * settledMs).unref()
  }, settledMs).unref()
  handover.events.on('report', ({ result, predecessor, connections: { cut } }) => {
    if (result !== 'drained' || predecessor.pid !== process.pid) return
    print({ cpuShare, stallMs: Math.max(stallMs, performance.now() - last - tickMs), cut })
  })
})
server.listen({ port: Number(process.env['PORT']), host: '127.0.0.1', backlog: 4_096 })
