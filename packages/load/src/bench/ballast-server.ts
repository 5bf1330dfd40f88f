/**
 * The server of `bench boot`: at SIGUSR2 it fills BALLAST megabytes and reloads itself. At the switch it writes the longest stalls of its
 * event loop to stdout: of one child_process.spawn, and of the reload until then. Its successor holds nothing meanwhile: to fill memory
 * takes time from the whole machine, which is another question.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { handover } from '@handover/core'

let ballast = Buffer.alloc(0)
const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
const stallMs = (): number => delay.max / 1e6

async function spawnStall(): Promise<number> {
  await sleep(50)
  delay.reset()
  await once(spawn('true', { stdio: 'ignore' }), 'exit')
  // A stall is counted by the timer that it delayed.
  await sleep(50)
  return stallMs()
}

const server = handover(http.createServer((_request, response) => { response.end(String(ballast.length)) }), { undoWindow: 0 })
server.listen(0, '127.0.0.1')
while (handover.state !== 'serving') await once(handover.events, 'state')
let ready = (): void => undefined
handover.events.on('draining', () => { ready() })
const asked = once(process, 'SIGUSR2')
process.stdout.write(`${JSON.stringify({ serving: process.pid })}\n`)
await asked
ballast = Buffer.alloc(Number(process.env['BALLAST']) * 1_000_000, 1)
await sleep(50)
const node = await spawnStall()
await sleep(50)
const switched = new Promise<number>((resolve) => { ready = () => { resolve(stallMs()) } })
delay.reset()
void handover.reload().catch(() => undefined)
process.stdout.write(`${JSON.stringify({ node, reload: await switched })}\n`)
