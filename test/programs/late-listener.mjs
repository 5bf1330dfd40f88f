// A server with two listeners, of which the second one does not come from the second start on. It cleans up in a listener of its own for SIGTERM.
//   PORT   of the first listener      MARK   a file that the first start makes
// /held is answered on SIGUSR2.
import { existsSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { print } from './print.mjs'

const isFirst = !existsSync(process.env.MARK)
writeFileSync(process.env.MARK, '')
let held
const server = http.createServer((request, response) => {
  if (request.url !== '/held') return response.end('ok')
  held = response
  print('held')
})
process.on('SIGUSR2', () => { held.end('whole') })
server.listen(Number(process.env.PORT), '127.0.0.1')
if (isFirst) http.createServer().listen(0, '127.0.0.1')
process.on('SIGTERM', () => {
  console.log(`cleans up: ${process.pid}`)
  server.close(() => {
    setTimeout(() => {
      console.log(`is clean: ${process.pid}`)
      process.exit(0)
    }, 50)
  })
})
