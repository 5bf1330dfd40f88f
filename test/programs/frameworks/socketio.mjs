// A chat with socket.io, beside routes of plain HTTP, as its author left it.
import http from 'node:http'
import { Server } from 'socket.io'
import { referenceHandler } from '@handover/load'

const server = http.createServer(referenceHandler('1'))
export const io = new Server(server)
io.on('connection', (socket) => {
  socket.emit('welcome', process.pid)
  socket.on('say', (text, answer) => { answer({ text, pid: process.pid }) })
})
server.listen(process.env.PORT, '127.0.0.1')
