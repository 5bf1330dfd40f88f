// node examples/fastify/server.mjs
// kill -HUP <the pid that it prints>
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import Fastify from 'fastify'
import handover from '@handover/fastify'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const app = Fastify()
await app.register(handover)

app.addHook('onRequest', async (request, reply) => { reply.headers({ 'x-version': version, 'x-pid': process.pid }) })
app.addContentTypeParser('*', (request, body, done) => { done(null, body) })
app.get('/', async () => ({ version, generation: app.handover.generation }))
app.get('/slow', async (request) => { await wait(Number(request.query.ms ?? 300)); return { version } })
app.get('/stream', async (request, reply) => reply.send(Readable.from(chunks(request.query.chunks ?? 10, request.query.ms ?? 50))))
app.post('/echo', async (request) => {
  const hash = createHash('sha256')
  let length = 0
  for await (const chunk of request.body) { hash.update(chunk); length += chunk.length }
  return { sha256: hash.digest('hex'), length }
})
async function* chunks(count, ms) {
  for (let i = 0; i < count; i++) { await wait(i && Number(ms)); yield `chunk ${i}\n` }
}

const address = await app.listen({ port: Number(process.env.PORT ?? 3000) })
console.log(`version ${version} listening on ${address}, process ${process.pid}`)
