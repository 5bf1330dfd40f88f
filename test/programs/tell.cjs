// Loaded beside a program that knows nothing of Handover: prints its events, as diagnostics_channel has them, as print.mjs does.
const { subscribe } = require('node:diagnostics_channel')
const { writeSync } = require('node:fs')

let generation = 1
let told = false

function print(event, detail) {
  if (!told) process.on('exit', (code) => { print('exit', { code }) })
  told = true
  const line = Buffer.from(`${JSON.stringify({ event, pid: process.pid, generation, ...detail })}\n`)
  try { writeSync(1, line) } catch { /* nobody listens any more */ }
}

subscribe('handover:state', (change) => {
  generation = change.generation
  print('state', change)
})
subscribe('handover:report', (report) => { print('report', { report }) })
subscribe('handover:draining', (drain) => { print('draining', drain) })
subscribe('handover:failed', ({ code, message, stderr }) => { print('failed', { code, message, stderr }) })
