// Events of a program as JSON lines on standard output, which all generations share: one write each, so that lines stay whole.
import { writeSync } from 'node:fs'
import { handover } from '@handover/core'

export function print(event, detail = {}) {
  const line = Buffer.from(`${JSON.stringify({ event, pid: process.pid, generation: handover.generation, ...detail })}\n`)
  try { writeSync(1, line) } catch { /* nobody listens any more */ }
}

export function printEvents({ events }) {
  events.on('state', (change) => { print('state', change) })
  events.on('report', (report) => { print('report', { report }) })
  events.on('draining', (drain) => { print('draining', drain) })
  process.on('exit', (code) => { print('exit', { code }) })
  events.on('failed', (error) => { print('failed', { code: error.code, message: error.message, stderr: error.stderr }) })
}
