// node examples/express/server.mjs
// kill -HUP <the pid that it prints>
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import express from 'express'
import { handover } from '@handover/express'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const app = handover(express())

app.use((req, res, next) => { res.set({ 'x-version': version, 'x-pid': process.pid }); next() })
app.get('/', (req, res) => { res.json({ version }) })
app.get('/slow', async (req, res) => { await wait(Number(req.query.ms ?? 300)); res.json({ version }) })
app.get('/stream', async (req, res) => {
  for (let i = 0; i < Number(req.query.chunks ?? 10); i++) { await wait(i && Number(req.query.ms ?? 50)); res.write(`chunk ${i}\n`) }
  res.end()
})
app.post('/echo', async (req, res) => {
  const hash = createHash('sha256')
  let length = 0
  for await (const chunk of req) { hash.update(chunk); length += chunk.length }
  res.json({ sha256: hash.digest('hex'), length })
})

const server = app.listen(Number(process.env.PORT ?? 3000), 'localhost', (error) => {
  if (error) throw error
  console.log(`version ${version} listening on http://localhost:${server.address().port}, process ${process.pid}`)
})
