// node examples/events/server.mjs      then open http://localhost:3000
// kill -HUP <the pid that it prints>
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { handover } from '@handover/core'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const page = '<pre></pre><script>new EventSource("/events").onmessage = ({ data }) => { document.querySelector("pre").append(data, "\\n") }</script>'
const streams = new Map() // socket → { next: the number of the next event, write, timer }

function tell(socket, stream) {
  streams.set(socket, stream)
  stream.timer = setInterval(() => {
    stream.write(`id: ${stream.next}\ndata: event ${stream.next++} of version ${version}, process ${process.pid}\n\n`)
  }, Number(process.env.EVERY_MS ?? 1000))
  socket.on('error', () => {}).on('close', () => { clearInterval(stream.timer); streams.delete(socket) })
}

handover.events.on('draining', () => {
  for (const [socket, stream] of streams) {
    clearInterval(stream.timer) // what is written from here on would not leave
    handover.move(socket, { kind: 'events', state: { next: stream.next } }).then((moved) => { if (!moved && !socket.destroyed) tell(socket, stream) })
  }
})
// No HTTP server stands on this socket: it goes on in the middle of an answer, whose body is chunked.
handover.onMoved('events', (socket, { next }) => {
  tell(socket, { next, write: (text) => socket.write(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`) })
})
const server = handover(http.createServer((req, res) => {
  res.setHeader('x-version', version).setHeader('x-pid', process.pid)
  if (req.url !== '/events') return res.setHeader('content-type', 'text/html').end(page)
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' }).flushHeaders()
  tell(req.socket, { next: 0, write: (text) => res.write(text) })
}))
server.listen(Number(process.env.PORT ?? 3000), () => console.log(`version ${version} listening on`, server.address(), `process ${process.pid}`))
