// A server that closes its port and listens on it again where it is asked to (/reopen), as some do to change their certificates.
import http from 'node:http'

let opened = 1
const listen = () => server.listen(Number(process.env.PORT), '127.0.0.1', () => { console.log(`open ${opened}`) })
const server = http.createServer((req, res) => {
  res.setHeader('Connection', 'close')
  res.end(String(opened))
  if (req.url === '/reopen') server.close(() => { opened++; listen() })
})
listen()
