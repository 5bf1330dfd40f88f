// node examples/websocket/server.mjs
// kill -HUP <the pid that it prints>
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { handover } from '@handover/core'
import { moveWebSockets } from '@handover/core/ws'
import { WebSocketServer } from 'ws'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()

const server = handover(http.createServer((req, res) => { res.setHeader('x-version', version).end('A WebSocket chat: connect to /?name=anna\n') }))
const wss = new WebSocketServer({ server })

// Before listen(). What the next process must know of a client goes along; the client sees nothing of it.
moveWebSockets(wss, {
  save: (ws) => ws.chat,
  restore: (ws, chat) => { ws.chat = chat }
})

wss.on('connection', (ws, req) => {
  ws.chat ??= { name: new URL(req.url, 'http://localhost').searchParams.get('name') ?? 'somebody', messages: 0 }
  ws.on('error', () => {})
  ws.on('message', (data) => {
    const line = `${ws.chat.name} (message ${++ws.chat.messages}, version ${version}): ${data}`
    for (const other of wss.clients) if (other.readyState === other.OPEN) other.send(line)
  })
})

server.listen(Number(process.env.PORT ?? 3000), () => console.log(`version ${version} listening on`, server.address(), `process ${process.pid}`))
