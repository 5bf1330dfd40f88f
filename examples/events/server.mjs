// node examples/events/server.mjs      then open http://localhost:3000
// kill -HUP <the pid that it prints>
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { handover } from '@handover/core'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const page = '<pre></pre><script>new EventSource("/events").onmessage = ({ data }) => { document.querySelector("pre").append(data, "\\n") }</script>'
const streams = new Map() // socket → { next: the number of the next event, chunked, out: what it is written to, write, end, timer, farewell }
let drain // { successor, begun, endsInMs } while this process drains

function tell(socket, stream) {
  streams.set(socket, stream)
  stream.out.on('error', () => {}).on('close', () => { pause(stream); streams.delete(socket) })
  if (drain) leave(socket, stream)
  else goOn(stream)
}

function goOn(stream) {
  stream.timer = setInterval(() => {
    if (!stream.out.writableEnded) stream.write(`id: ${stream.next}\ndata: event ${stream.next++} of version ${version}, process ${process.pid}\n\n`)
  }, Number(process.env.EVERY_MS ?? 1000))
}

function pause(stream) {
  clearInterval(stream.timer)
  clearTimeout(stream.farewell)
}

async function leave(socket, stream) {
  pause(stream) // what is written from here on would not leave
  const { next, chunked } = stream
  const moved = await handover.move(socket, { kind: 'events', state: { next, chunked } }).catch(console.error)
  if (moved) return streams.delete(socket)
  if (!streams.has(socket)) return
  goOn(stream)
  // Handover ends the answers of HTTP servers with a hint when to come back. One that has moved is none any more.
  if (!stream.end || !drain) return
  // At moments of their own, so that not all clients come back at once, and before what is still open is cut.
  const at = drain.begun + drain.endsInMs * (0.8 + 0.1 * Math.random())
  stream.farewell = setTimeout(() => { if (drain) stream.end() }, drain.successor ? at - performance.now() : 0)
}

handover.events.on('draining', ({ successor, endsInMs }) => {
  drain = { successor, begun: performance.now(), endsInMs }
  for (const [socket, stream] of streams) leave(socket, stream)
})
handover.events.on('state', ({ to }) => { if (to === 'serving') drain = undefined }) // again, where a reload was undone

// No HTTP server stands on this socket: it goes on in the middle of an answer. Its body is chunked, except for clients of HTTP/1.0.
handover.onMoved('events', (socket, { next, chunked }) => {
  const write = (text) => socket.write(chunked ? `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n` : text)
  const end = () => { write('retry: 1000\n\n'); socket.end(chunked ? '0\r\n\r\n' : '') }
  socket.on('end', () => { socket.end() }).resume() // so it is seen that the client leaves
  tell(socket, { next, chunked, out: socket, write, end })
})
const server = handover(http.createServer((req, res) => {
  res.setHeader('x-version', version).setHeader('x-pid', process.pid)
  if (req.url !== '/events') return res.setHeader('content-type', 'text/html').end(page)
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' }).flushHeaders()
  tell(req.socket, { next: Number(req.headers['last-event-id'] ?? -1) + 1, chunked: res.chunkedEncoding, out: res, write: (text) => res.write(text) })
}))
server.listen(Number(process.env.PORT ?? 3000), () => console.log(`version ${version} listening on`, server.address(), `process ${process.pid}`))
