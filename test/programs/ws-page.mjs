// A page for a browser, and the WebSocket that it opens: it sends numbered messages and checks what comes back and what is pushed. Its findings come
// over the same WebSocket and are printed. TLS: over TLS. The state that moves holds what the server has counted.
import http from 'node:http'
import https from 'node:https'
import { handover } from '@handover/core'
import { moveWebSockets } from '@handover/core/ws'
import { WebSocketServer } from 'ws'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

printEvents(handover)

/* global WebSocket, location, TextDecoder, TextEncoder -- of the browser, where this function runs */
const page = () => {
  const ws = new WebSocket(`${location.protocol.replace('http', 'ws')}//${location.host}/ws`)
  ws.binaryType = 'arraybuffer'
  const found = { sent: 0, came: 0, pushed: 0, errors: [], generations: [] }
  const opened = performance.now()
  ws.onmessage = ({ data }) => {
    if (typeof data === 'string' && data.startsWith('push ')) {
      const [, number, generation] = data.split(' ').map(Number)
      if (number !== ++found.pushed) found.errors.push(`push ${number} instead of ${found.pushed}`)
      if (!found.generations.includes(generation)) found.generations.push(generation)
      return
    }
    const isBinary = typeof data !== 'string'
    const [number, padding] = (isBinary ? new TextDecoder().decode(data) : data).split(' ')
    found.came++
    if (Number(number) !== found.came || isBinary !== (found.came % 2 === 0) || padding.length !== length(found.came)) found.errors.push(`message ${number} (${padding.length}) instead of ${found.came}`)
  }
  const length = (number) => (number % 20 === 0 ? 100_000 : number % 200)
  const send = () => {
    const text = `${++found.sent} ${'x'.repeat(length(found.sent))}`
    ws.send(found.sent % 2 === 0 ? new TextEncoder().encode(text) : text)
  }
  ws.onopen = () => {
    setInterval(send, 10)
    setInterval(() => { ws.send(`found ${JSON.stringify(found)}`) }, 100)
  }
  ws.onerror = () => { found.errors.push('error') }
  ws.onclose = ({ code }) => { void fetch(`/closed?code=${code}&after=${Math.round(performance.now() - opened)}`) }
}

const { createServer } = process.env.TLS ? https : http
const server = handover(createServer(process.env.TLS ? certificate() : {}, (req, res) => {
  if (req.url.startsWith('/closed')) print('closed', { url: req.url })
  res.setHeader('Content-Type', 'text/html').end(`<!doctype html><title>page</title><script>(${page.toString()})()</script>`)
}), { undoWindow: 100, linger: 500 })

// Without the option browsers and ws agree on no compression.
const wss = new WebSocketServer({ server, path: '/ws' })
const states = new WeakMap()
moveWebSockets(wss, { save: (ws) => states.get(ws), restore: (ws, state) => { states.set(ws, state) } })

wss.on('connection', (ws, request) => {
  print('connection', { moved: states.has(ws), agent: request.headers['user-agent'], offered: request.headers['sec-websocket-extensions'] })
  if (!states.has(ws)) states.set(ws, { got: 0, pushed: 0 })
  const state = states.get(ws)
  ws.on('message', (data, isBinary) => {
    const text = data.toString()
    if (text.startsWith('found ')) {
      print('found', { found: JSON.parse(text.slice(6)) })
      return
    }
    const number = Number.parseInt(text, 10)
    if (number !== state.got + 1) print('bad', { what: `message ${number} after ${state.got}` })
    state.got = number
    ws.send(data, { binary: isBinary })
  })
  ws.on('close', (code) => { print('close', { code }) })
})

setInterval(() => {
  for (const ws of wss.clients) if (ws.readyState === ws.OPEN) ws.send(`push ${++states.get(ws).pushed} ${handover.generation}`)
}, 20).unref()

server.listen(0, '127.0.0.1', () => { print('listening', { address: server.address() }) })
