// The same chat, which says goodbye when its generation drains: its clients come back to the successor, a few at a time. It needs no package for that.
import { subscribe } from 'node:diagnostics_channel'
import http from 'node:http'
import { Server } from 'socket.io'
import { referenceHandler } from '@handover/load'

const server = http.createServer(referenceHandler('1'))
const io = new Server(server)
io.on('connection', (socket) => {
  socket.emit('welcome', process.pid)
  socket.on('say', (text, answer) => { answer({ text, pid: process.pid }) })
})
server.listen(process.env.PORT, '127.0.0.1')

subscribe('handover:draining', ({ endsInMs }) => {
  // Not socket.disconnect(): a client that was disconnected by the server does not come back by itself.
  for (const { conn } of io.sockets.sockets.values()) setTimeout(() => { conn.close() }, Math.random() * Math.min(5_000, endsInMs / 4))
})
