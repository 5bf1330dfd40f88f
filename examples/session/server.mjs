// node examples/session/server.mjs     then curl -c jar -b jar -X POST localhost:3000/login/ada, and curl -b jar localhost:3000
// kill -HUP <the pid that it prints>   and curl -b jar localhost:3000 again: still ada
import { readFileSync } from 'node:fs'
import express from 'express'
import session from 'express-session'
import { handover } from '@handover/express'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const app = handover(express())
const store = new session.MemoryStore()

// store.sessions: id → JSON. What the predecessor changes after its offer comes when its last request is answered. A session that either of the two destroyed
// stays so; one that both changed stays as it is here, where a cookie whose time was extended is no change.
let offered = new Map()
const data = (text) => text && JSON.stringify({ ...JSON.parse(text), cookie: null })
app.handover.share('sessions', {
  final: true,
  save: () => new Map(Object.entries(store.sessions)),
  restore(saved) {
    offered = saved
    for (const [id, text] of saved) store.sessions[id] = text
  },
  merge(final) {
    for (const id of new Set([...offered.keys(), ...final.keys()])) {
      const [before, theirs, mine] = [offered.get(id), final.get(id), store.sessions[id]]
      if (theirs === before) continue
      if (!theirs) delete store.sessions[id]
      else if (mine === before || (data(mine) === data(before) && data(theirs) !== data(before))) store.sessions[id] = theirs
    }
    offered.clear()
  }
})

app.use((req, res, next) => { res.set({ 'x-version': version, 'x-pid': process.pid }); next() })
// The secret must be that of the predecessor, too.
app.use(session({ store, secret: process.env.SESSION_SECRET ?? 'change me', resave: false, saveUninitialized: false, rolling: true, cookie: { maxAge: 3_600_000 } }))
app.get('/', (req, res) => { res.json({ version, user: req.session.user }) })
app.post('/login/:user', (req, res) => { req.session.user = req.params.user; res.json({ version, user: req.session.user }) })
app.post('/logout', (req, res, next) => { req.session.destroy((error) => { if (error) next(error); else res.json({ version }) }) })

const server = app.listen(Number(process.env.PORT ?? 3000), 'localhost', (error) => {
  if (error) throw error
  console.log(`version ${version} listening on http://localhost:${server.address().port}, process ${process.pid}`)
})
