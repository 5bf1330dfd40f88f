/**
 * The server of `bench state` for small sections: shares SECTIONS of them, and reloads itself at SIGUSR2. When it serves it writes what CPU
 * time it took until then; at the switch how long the successor took to be ready, the longest stall of its event loop meanwhile, and what
 * CPU time the reload took of this process.
 */

import http from 'node:http'
import { once } from 'node:events'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { handover } from '@handover/core'

for (let index = 0; index < Number(process.env['SECTIONS']); index++) {
  handover.share(`section ${index}`, {
    save: () => ({ index, text: 'x'.repeat(80) }),
    restore(value) {
      if ((value as { index: number }).index !== index) throw new Error('another section')
    }
  })
}
const server = handover(http.createServer((_request, response) => { response.end() }), { undoWindow: 0 })
server.listen(0, '127.0.0.1')
while (handover.state !== 'serving') await once(handover.events, 'state')
const cpuMs = (since?: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since)
  return (user + system) / 1000
}
const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
const asked = once(process, 'SIGUSR2')
process.stdout.write(`${JSON.stringify({ serving: process.pid, cpuMs: cpuMs() })}\n`)
await asked
delay.reset()
const before = process.cpuUsage()
const { durations: { prepare } } = await handover.reload()
process.stdout.write(`${JSON.stringify({ prepareMs: prepare, stallMs: delay.max / 1e6, cpuMs: cpuMs(before) })}\n`)
