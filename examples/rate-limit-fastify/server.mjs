// node examples/rate-limit-fastify/server.mjs   then curl -i localhost:3000/limited until it says 429
// kill -HUP <the pid that it prints>            and again: still 429, and free when the minute is over
import { readFileSync } from 'node:fs'
import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import { LRUCache } from 'lru-cache'
import handover from '@handover/fastify'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const app = Fastify()
await app.register(handover)

// The store of the plugin cannot be reached, so this one takes its place: a fixed window for each route and client. It knows no `exponentialBackoff` and no `continueExceeding`.
const counts = new LRUCache({ max: 50_000 }) // route and client → { count, until }
class Store {
  constructor(options, route = '') { this.route = route }
  child({ routeInfo: { method, url } }) { return new Store({}, `${method} ${url}`) }
  incr(client, done, windowMs) {
    const key = `${this.route} ${client}`
    const now = Date.now()
    let found = counts.get(key)
    if (!found || found.until <= now) counts.set(key, found = { count: 0, until: now + windowMs })
    found.count += 1
    done(null, { current: found.count, ttl: found.until - now })
  }
}

let offered = new Map()
app.handover.share('rate limit', {
  final: true,
  save: () => new Map(counts.rentries()),
  restore(saved) {
    offered = saved
    for (const [key, { count, until }] of saved) counts.set(key, { count, until })
  },
  // What the predecessor has counted since comes on top; the window ends where the earlier of the two does.
  merge(final) {
    for (const [key, { count, until }] of final) {
      const before = offered.get(key)
      const more = before?.until === until ? count - before.count : count
      if (more === 0 || until <= Date.now()) continue
      const mine = counts.peek(key)
      if (mine?.until > Date.now()) counts.set(key, { count: mine.count + more, until: Math.min(mine.until, until) })
      else counts.set(key, { count: more, until })
    }
    offered.clear()
  }
})

await app.register(rateLimit, { global: false, store: Store })
app.addHook('onRequest', async (request, reply) => { reply.headers({ 'x-version': version, 'x-pid': process.pid }) })
app.get('/', async () => ({ version }))
const limit = { max: Number(process.env.LIMIT ?? 10), timeWindow: 60_000 }
app.get('/limited', { config: { rateLimit: limit } }, async () => ({ version }))

const address = await app.listen({ port: Number(process.env.PORT ?? 3000) })
console.log(`version ${version} listening on ${address}, process ${process.pid}`)
