// A Hono app as its author left it; it keeps the contract of the load client by Hono's own means.
import { createHash } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { streamText } from 'hono/streaming'
import { streamChunk } from '@handover/load'

const app = new Hono()
app.use(async (c, next) => {
  c.header('x-version', '1')
  c.header('x-pid', String(process.pid))
  const id = c.req.header('x-request-id')
  if (id !== undefined) c.header('x-request-id', id)
  await next()
})
app.get('/hello', (c) => c.json({ hello: 'Hono' }))
app.get('/', (c) => c.json({ version: '1', pid: process.pid }))
app.get('/slow', async (c) => {
  await wait(Number(c.req.query('ms') ?? 300))
  return c.json({ version: '1', pid: process.pid })
})
app.post('/echo', async (c) => {
  const body = Buffer.from(await c.req.arrayBuffer())
  return c.json({ sha256: createHash('sha256').update(body).digest('hex'), length: body.length })
})
app.get('/stream', (c) => streamText(c, async (stream) => {
  for (let index = 0; index < Number(c.req.query('chunks') ?? 10); index++) {
    if (index > 0) await stream.sleep(Number(c.req.query('ms') ?? 50))
    await stream.write(streamChunk(index))
  }
}))
serve({ fetch: app.fetch, port: Number(process.env.PORT), hostname: '127.0.0.1' })
