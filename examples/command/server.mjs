// npx handover run --workers 2 examples/command/server.mjs
// npx handover reload
// An Express app that knows nothing of Handover.
import { readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import express from 'express'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const app = express()

app.use((req, res, next) => { res.set({ 'x-version': version, 'x-pid': process.pid }); next() })
app.get('/', (req, res) => { res.json({ version }) })
app.get('/healthz', (req, res) => { res.send('ok\n') })
app.get('/slow', async (req, res) => { await wait(Number(req.query.ms ?? 300)); res.json({ version }) })

const server = app.listen(Number(process.env.PORT ?? 3000), (error) => {
  if (error) throw error
  console.log(`version ${version} listening on port ${server.address().port}, process ${process.pid}`)
})
