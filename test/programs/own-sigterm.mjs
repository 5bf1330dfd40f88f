// A server that cleans up in a listener of its own for SIGTERM, as many do: it closes its server, then something that takes a while, and ends the process.
import http from 'node:http'

const server = http.createServer((req, res) => res.end('ok'))
server.listen(Number(process.env.PORT), '127.0.0.1')
process.on('SIGTERM', () => {
  console.log(`cleans up: ${process.pid}`)
  server.close(() => {
    setTimeout(() => {
      console.log(`is clean: ${process.pid}`)
      process.exit(0)
    }, 50)
  })
})
