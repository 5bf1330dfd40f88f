/**
 * The server of `bench move`: answers with its version and pid, and measures its own event loop from the switch on, as the predecessor and
 * as the successor of each reload. It writes what it found to stderr, as lines `bench move {json}`.
 *
 * SIGUSR2 calls server.closeIdleConnections(), for the comparison.
 */

import { readFileSync } from 'node:fs'
import http from 'node:http'
import { handover } from '@handover/core'
import { nowMs } from '../client/clock.js'
import type { ServerLine } from './move.js'

const version = readFileSync(process.env['APP_VERSION_FILE']!, 'utf8').trim()
const tickMs = 5

const print = (line: ServerLine): void => { process.stderr.write(`bench move ${JSON.stringify(line)}\n`) }

/** How much later than it should a timer fired, at most. */
let stallMs = 0
let watch: NodeJS.Timeout | undefined
function watchLoop(): void {
  clearInterval(watch)
  stallMs = 0
  let last = performance.now()
  watch = setInterval(() => {
    const now = performance.now()
    stallMs = Math.max(stallMs, now - last - tickMs)
    last = now
  }, tickMs)
  watch.unref()
}

let switchedAt = 0
let cpu = process.cpuUsage()
const cpuMs = (): number => {
  const { user, system } = process.cpuUsage(cpu)
  return (user + system) / 1000
}
handover.events.on('state', ({ from, to }) => {
  if (to === 'draining' || (from === 'ready' && to === 'serving')) {
    watchLoop()
    cpu = process.cpuUsage()
  }
  if (to === 'draining') switchedAt = nowMs()
})
handover.events.on('report', (report) => {
  if (report.result !== 'drained') return
  const { generation } = report.predecessor
  if (report.predecessor.pid === process.pid) print({ role: 'predecessor', generation, stallMs, cpuMs: cpuMs(), switchedAt, report })
  else print({ role: 'successor', generation, stallMs, cpuMs: cpuMs() })
})

const server = handover(http.createServer({ keepAliveTimeout: 600_000 }, (_request, response) => {
  response.setHeader('x-version', version).setHeader('x-pid', process.pid).end('ok')
}))
// The successor cannot know what such a listener will do, so that it calls it before it acknowledges a connection.
if (process.env['LISTENER'] !== undefined) server.on('connection', () => undefined)
process.on('SIGUSR2', () => {
  const begun = performance.now()
  server.closeIdleConnections()
  print({ role: 'closer', ms: performance.now() - begun })
})
server.listen({ port: Number(process.env['PORT']), host: '127.0.0.1', backlog: 4_096 })
