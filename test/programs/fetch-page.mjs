// A page for a browser over TLS (KIND https, or h2 for HTTP/2): it fetches again and again, and its findings are printed: answers, errors, which
// generations answered, and how often the browser opened a connection for a fetch (Resource Timing).
import https from 'node:https'
import http2 from 'node:http2'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

printEvents(handover)

const page = () => {
  const found = { answers: 0, connects: 0, protocols: [], generations: [], errors: [] }
  const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms) })
  const ask = async (user) => {
    for (let count = 1; ; count++) {
      const body = 'x'.repeat(count % 20 === 0 ? 100_000 : count % 500)
      try {
        const answer = await fetch(`/api?${user}-${count}`, { method: 'POST', body })
        const { generation, length } = await answer.json()
        if (length !== body.length) found.errors.push(`${length} bytes instead of ${body.length}`)
        if (!found.generations.includes(generation)) found.generations.push(generation)
        found.answers++
      } catch (error) {
        found.errors.push(String(error))
      }
      for (const { name, connectStart, connectEnd, nextHopProtocol } of performance.getEntriesByType('resource')) {
        if (!name.includes('/api')) continue
        if (connectEnd > connectStart) found.connects++
        if (!found.protocols.includes(nextHopProtocol)) found.protocols.push(nextHopProtocol)
      }
      performance.clearResourceTimings()
      await wait(user === 0 ? 5 : 40)
      if (user === 0 && count % 20 === 0) await fetch('/found', { method: 'POST', body: JSON.stringify(found) })
    }
  }
  void Promise.all([0, 1].map(ask))
}

const text = async (request) => (await request.toArray()).join('')

async function answer(request, response) {
  if (request.url === '/page') {
    response.writeHead(200, { 'Content-Type': 'text/html' }).end(`<!doctype html><script>(${page})()</script>`)
  } else if (request.url === '/found') {
    print('found', { found: JSON.parse(await text(request)) })
    response.end('{}')
  } else if (request.url.startsWith('/api')) {
    const { length } = await text(request)
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ generation: handover.generation, length }))
  } else {
    response.writeHead(404).end()
  }
}

const { createServer } = process.env.KIND === 'h2' ? { createServer: http2.createSecureServer } : https
const server = handover(createServer(certificate(), (request, response) => { answer(request, response).catch(() => response.destroy()) }), { undoWindow: 100 })
server.listen(0, '127.0.0.1', () => { print('listening', { address: server.address() }) })
