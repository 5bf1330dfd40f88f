// Wrong rules: each breaks one thing that carries the move of a connection, and the fuzz must then fail. They replace functions on the modules of the
// core before anything has called them; the core's CommonJS looks each up at every call. `changed` counts how often a rule has answered otherwise.
import { closeSync } from 'node:fs'

/** Of a connection under TLS. */
const countOffByOne = (name) => ({ cargo }, changed) => {
  const { cargoOf } = cargo
  cargo.cargoOf = (...of) => {
    const found = cargoOf(...of)
    if (typeof found === 'string') return found
    changed()
    return { ...found, about: { ...found.about, [name]: found.about[name] + 1 } }
  }
}

export const mutations = {
  'the number of the next record that is read is one too high': countOffByOne('readSequence'),
  'the number of the next record that is written is one too high': countOffByOne('writeSequence'),
  'a request that has half arrived does not hold a connection back': ({ movability }, changed) => {
    const { movabilityOf } = movability
    movability.movabilityOf = (socket, connection, reading) => {
      if (reading.has(socket) && socket.bytesRead > 0) changed()
      return movabilityOf(socket, connection, new Set())
    }
  },
  'a request without an answer does not hold a connection back': ({ movability, handle }, changed) => {
    const { movabilityOf } = movability
    handle.isAnswering = () => false
    movability.movabilityOf = (socket, connection, reading) => {
      if (connection.running.length > 0) changed()
      return movabilityOf(socket, { ...connection, running: [] }, reading)
    }
  },
  'an answer that is finished and not sent does not hold a connection back': ({ movability, handle }, changed) => {
    const { movabilityOf } = movability
    handle.unsentBytes = () => 0
    movability.movabilityOf = (socket, connection, reading) => {
      const running = connection.running.filter(({ response }) => !response.writableEnded)
      if (running.length > 0 || connection.running.length === 0) return movabilityOf(socket, connection, reading)
      changed()
      const { _httpMessage: message } = socket
      socket._httpMessage = null
      try {
        return movabilityOf(socket, { ...connection, running }, reading)
      } finally {
        socket._httpMessage = message
      }
    }
  },
  "Node's own list of idle connections is trusted": ({ movability }, changed) => {
    movability.movabilityOf = (socket) => {
      const symbol = Object.getOwnPropertySymbols(socket.server).find(({ description }) => description === 'http.server.connections')
      if (!socket.server[symbol].idle().some((parser) => parser.socket === socket)) return 'later'
      changed()
      return 'now'
    }
  },
  'the predecessor reads on while a connection is on its way': ({ handle }, changed) => {
    handle.holdReading = changed
  },
  'a connection that comes back is not read from any more': ({ handle }, changed) => {
    handle.releaseReading = changed
  },
  'the successor drops what it has acknowledged': ({ tracker }, changed) => {
    const { receive } = tracker.ConnectionTracker.prototype
    let count = 0
    tracker.ConnectionTracker.prototype.receive = function (fd, about) {
      if (++count % 100 > 0) return receive.call(this, fd, about)
      changed()
      closeSync(fd)
    }
  },
  'the successor takes an idle connection for one that begins a request': ({ handle }, changed) => {
    handle.primeParser = changed
  },
  'the predecessor closes what the successor did not acknowledge': ({ sender }, changed) => {
    const { taken } = sender.ConnectionSender.prototype
    sender.ConnectionSender.prototype.taken = function () {
      changed()
      taken.call(this, 252)
    }
  }
}
