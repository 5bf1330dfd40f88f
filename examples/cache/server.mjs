// node examples/cache/server.mjs       then curl -i localhost:3000/items/7, twice
// kill -HUP <the pid that it prints>   and again: still a hit
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import { handover } from '@handover/core'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const cache = new LRUCache({ max: 100_000, ttl: Number(process.env.TTL_MS ?? 600_000) })

// Each item by itself, the oldest first, with the moment until which it is fresh. All keys at once, as each get() changes their order while the items
// leave; not cache.dump(), which takes seconds for 100,000 items. Keep what is wrong once it is stale out of a cache, or send() over a peer what has changed.
if (process.env.SHARE !== 'off') {
  handover.share('cache', {
    optional: true,
    *save() {
      for (const key of [...cache.rkeys()]) {
        const { value, ttl } = cache.info(key) ?? {}
        if (ttl > 0) yield [key, value, Date.now() + ttl]
      }
    },
    async restore(items) {
      for await (const [key, value, until] of items) {
        if (until > Date.now()) cache.set(key, value, { ttl: until - Date.now() })
      }
    }
  })
}

let lookups = 0 // of this process
let hits = 0

async function item(id) {
  const known = cache.get(id)
  lookups += 1
  if (known) {
    hits += 1
    return { item: known, hit: true }
  }
  await wait(Number(process.env.ORIGIN_MS ?? 10)) // a database, for example
  const item = { id, loadedBy: process.pid }
  cache.set(id, item)
  return { item, hit: false }
}

const server = handover(http.createServer(async (req, res) => {
  res.setHeader('x-version', version).setHeader('x-pid', process.pid).setHeader('content-type', 'application/json')
  if (req.url === '/cache') return res.end(JSON.stringify({ version, lookups, hits, items: cache.size }))
  const id = req.url.startsWith('/items/') ? req.url.slice('/items/'.length) : String(Math.floor(1000 * Math.random()))
  const { item: found, hit } = await item(id)
  res.setHeader('x-cache', hit ? 'hit' : 'miss').setHeader('x-fresh-until', Math.round(Date.now() + cache.getRemainingTTL(id)))
  res.end(JSON.stringify({ version, ...found }))
}))
server.listen(Number(process.env.PORT ?? 3000), () => console.log(`version ${version} listening on`, server.address(), `process ${process.pid}`))
