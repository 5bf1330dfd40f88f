// Wrong rules: each breaks one thing that carries the move of a connection, and the fuzz must then fail. They replace functions on the modules of the
// core before anything has called them; the core's CommonJS looks each up at every call. `changed` counts how often a rule has answered otherwise.
import { closeSync } from 'node:fs'

export const mutations = {
  'a request that has half arrived does not hold a connection back': ({ movable }, changed) => {
    const { standingOf } = movable
    movable.standingOf = (socket, connection, reading) => {
      if (reading.has(socket) && socket.bytesRead > 0) changed()
      return standingOf(socket, connection, new Set())
    }
  },
  'a request without an answer does not hold a connection back': ({ movable, private: inside }, changed) => {
    const { standingOf } = movable
    inside.isAnswering = () => false
    movable.standingOf = (socket, connection, reading) => {
      if (connection.running.size > 0) changed()
      return standingOf(socket, { ...connection, running: new Map() }, reading)
    }
  },
  'an answer that is finished and not sent does not hold a connection back': ({ movable, private: inside }, changed) => {
    const { standingOf } = movable
    inside.unsentBytes = () => 0
    movable.standingOf = (socket, connection, reading) => {
      const running = new Map([...connection.running].filter(([response]) => !response.writableEnded))
      if (running.size > 0 || connection.running.size === 0) return standingOf(socket, connection, reading)
      changed()
      const { _httpMessage: message } = socket
      socket._httpMessage = null
      try {
        return standingOf(socket, { ...connection, running }, reading)
      } finally {
        socket._httpMessage = message
      }
    }
  },
  "Node's own list of idle connections is trusted": ({ movable }, changed) => {
    movable.standingOf = (socket) => {
      const symbol = Object.getOwnPropertySymbols(socket.server).find(({ description }) => description === 'http.server.connections')
      if (!socket.server[symbol].idle().some((parser) => parser.socket === socket)) return 'later'
      changed()
      return 'now'
    }
  },
  'the predecessor reads on while a connection is on its way': ({ private: inside }, changed) => {
    inside.holdReading = changed
  },
  'a connection that comes back is not read from any more': ({ private: inside }, changed) => {
    inside.releaseReading = changed
  },
  'the successor drops what it has acknowledged': ({ connections }, changed) => {
    const { adopt } = connections.Connections.prototype
    let count = 0
    connections.Connections.prototype.adopt = function (fd, about) {
      if (++count % 100 > 0) return adopt.call(this, fd, about)
      changed()
      closeSync(fd)
    }
  },
  'the successor takes an idle connection for one that begins a request': ({ private: inside }, changed) => {
    inside.primeParser = changed
  },
  'the predecessor closes what the successor did not acknowledge': ({ moving }, changed) => {
    const { taken } = moving.Mover.prototype
    moving.Mover.prototype.taken = function () {
      changed()
      taken.call(this, 252)
    }
  }
}
