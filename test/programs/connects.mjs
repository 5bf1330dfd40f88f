// Connects to 127.0.0.1 again and again, on each port that its parent sends, until a connect is refused. Answers what became of them.
import net from 'node:net'

const clients = 40

process.on('message', (port) => {
  const seen = { answered: 0, reset: 0, refused: 0 }
  let running = clients
  const connect = () => {
    const socket = net.connect(port, '127.0.0.1')
    let isConnected = false
    socket.on('connect', () => { isConnected = true; socket.end('x') })
    socket.on('data', () => { seen.answered++ })
    socket.on('error', () => { seen[isConnected ? 'reset' : 'refused']++ })
    socket.on('close', () => {
      if (seen.refused === 0) connect()
      else if (--running === 0) process.send(seen)
    })
  }
  for (let client = 0; client < clients; client++) connect()
})
process.on('disconnect', () => { process.exit() })
