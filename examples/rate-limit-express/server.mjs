// node examples/rate-limit-express/server.mjs   then curl -i localhost:3000/limited until it says 429
// kill -HUP <the pid that it prints>            and again: still 429, and free when the minute is over
import { readFileSync } from 'node:fs'
import express from 'express'
import { MemoryStore, rateLimit } from 'express-rate-limit'
import { handover } from '@handover/express'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const app = handover(express())
const store = new MemoryStore()

let offered = new Map()
app.handover.share('rate limit', {
  final: true,
  save: () => new Map([...store.previous, ...store.current]), // client → { totalHits, resetTime }
  restore(saved) {
    offered = saved
    for (const [key, { totalHits, resetTime }] of saved) store.current.set(key, { totalHits, resetTime })
  },
  // What the predecessor has counted since comes on top; the window ends where the earlier of the two does.
  merge(final) {
    for (const [key, { totalHits, resetTime }] of final) {
      const before = offered.get(key)
      const more = Number(before?.resetTime) === Number(resetTime) ? totalHits - before.totalHits : totalHits
      if (more === 0 || resetTime <= Date.now()) continue
      const mine = store.current.get(key) ?? store.previous.get(key)
      if (mine?.resetTime > Date.now()) Object.assign(mine, { totalHits: mine.totalHits + more, resetTime: new Date(Math.min(mine.resetTime, resetTime)) })
      else store.current.set(key, { totalHits: more, resetTime })
    }
    offered.clear()
  }
})

app.use((req, res, next) => { res.set({ 'x-version': version, 'x-pid': process.pid }); next() })
app.get('/', (req, res) => { res.json({ version }) })
app.get('/limited', rateLimit({ store, limit: Number(process.env.LIMIT ?? 10), windowMs: 60_000 }), (req, res) => { res.json({ version }) })

const server = app.listen(Number(process.env.PORT ?? 3000), 'localhost', (error) => {
  if (error) throw error
  console.log(`version ${version} listening on http://localhost:${server.address().port}, process ${process.pid}`)
})
