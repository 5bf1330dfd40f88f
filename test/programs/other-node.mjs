// Preloaded (--import): makes this Node keep its connections in another way, as a later version may. OTHER says what is different.
import { Server } from 'node:http'
import net from 'node:net'

switch (process.env.OTHER) {
  case 'no-list': {
    const { getOwnPropertySymbols } = Object
    Object.getOwnPropertySymbols = (object) => getOwnPropertySymbols(object).filter((symbol) => symbol.description !== 'http.server.connections')
    break
  }
  case 'no-handle': {
    // What a socket is made for that does not read or write.
    net.Socket = class extends net.Socket {
      constructor(options) {
        super(options)
        if (options?.readable === false && options.writable === false) this._handle = null
      }
    }
    break
  }
  case 'no-parser': {
    // A server of another make, which reads from its sockets itself.
    const { emit } = Server.prototype
    Server.prototype.emit = function (event, ...args) {
      const answer = emit.call(this, event, ...args)
      if (event === 'connection') args[0].on('data', () => undefined)
      return answer
    }
    break
  }
}
