// A server with connections whose end it alone knows: upgraded ones (a WebSocket, say), and on a path those of a protocol of its own. It knows nothing of
// Handover. KIND says what it does at SIGTERM; each step is a line of standard output.
import { writeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'

const say = (step) => { writeSync(1, `${process.pid}: ${step}\n`) }
const sockets = new Set()
const keep = (socket) => {
  sockets.add(socket)
  socket.on('data', (bytes) => { socket.write(bytes) }).on('error', () => undefined).on('close', () => { sockets.delete(socket) })
}
const server = http.createServer((req, res) => { res.end('ok') }).on('upgrade', (req, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
  keep(socket)
})
const chat = net.createServer(keep)

const kinds = {
  'says goodbye': () => { for (const socket of sockets) socket.end('goodbye') },
  'waits for their end': () => undefined
}
process.on('SIGTERM', () => {
  say(`${sockets.size} open`)
  kinds[process.env.KIND]()
  let open = 2
  for (const each of [server, chat]) each.close(() => {
    if (--open > 0) return
    // As the pool of a database.
    setTimeout(() => {
      say('closed')
      process.exit(3)
    }, 20)
  })
})
chat.listen(`${process.env.KEPT_FOLDER}/chat.sock`, () => { server.listen(process.env.PORT, '127.0.0.1') })
