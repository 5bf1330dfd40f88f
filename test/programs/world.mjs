// An http server that prints what it sees of the world around it. Tests copy it next to a version of their own.
//   PORT (0), NAME, ENV_FILE (KEY=value lines, taken as dotenv does), OPTIONS
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeSync } from 'node:fs'
import http from 'node:http'
import { handover } from '@handover/core'

const print = (event, detail) => { writeSync(1, `${JSON.stringify({ event, pid: process.pid, generation: handover.generation, ...detail })}\n`) }
const read = (file) => { try { return readFileSync(file, 'utf8').trim() } catch { return undefined } }
for (const [event, make] of [['state', (change) => change], ['report', (report) => ({ report })], ['failed', ({ code, message }) => ({ code, message })], ['draining', () => ({})]]) handover.events.on(event, (detail) => { print(event, make(detail)) })

for (const line of (read(process.env.ENV_FILE) ?? '').split('\n').filter(Boolean)) {
  const [, key, value] = /^(\w+)=(.*)$/.exec(line)
  process.env[key] ??= value
}

const server = handover(http.createServer((req, res) => {
  if (req.url === '/slow') {
    print('slow')
    setTimeout(() => { res.end(String(process.pid)) }, 300)
  } else res.end(String(process.pid))
}), { undoWindow: 200, linger: 200, ...(process.env.NAME && { name: process.env.NAME }), ...JSON.parse(process.env.OPTIONS ?? '{}') })
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1')
await Promise.race([once(server, 'listening'), once(server, 'error').then(([error]) => { print('error', { code: error.code, message: error.message }); throw error })])

const marked = Object.keys(process.env).filter((key) => key === 'HANDOVER_SUCCESSOR')
const inChild = spawnSync(process.execPath, ['-p', 'JSON.stringify([process.env.HANDOVER_SUCCESSOR ?? null, fs.readdirSync("/proc/self/fd").length])'], { encoding: 'utf8' })
print('listening', {
  port: server.address().port, version: read(new URL('version.txt', import.meta.url)), execPath: process.execPath, cwd: process.cwd(),
  marked, child: JSON.parse(inChild.stdout), fromFile: process.env.FROM_FILE
})
process.stderr.write(`to stderr from generation ${handover.generation}\n`)
