// The same chat, which says goodbye when its generation drains: its clients come back to the successor, a few at a time. It needs no package for that.
import { subscribe } from 'node:diagnostics_channel'
import { io } from './socketio.mjs'

subscribe('handover:draining', ({ endsInMs }) => {
  // Not socket.disconnect(): a client that was disconnected by the server does not come back by itself.
  for (const { conn } of io.sockets.sockets.values()) setTimeout(() => { conn.close() }, Math.random() * Math.min(5_000, endsInMs / 4))
})
