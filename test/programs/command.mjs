// An http server for the tests of the command `handover`, whose next boot goes wrong as BEHAVIOUR_FILE says (behaviour.mjs).
//   OPTIONS   JSON of HandoverOptions
//   HEARS_UNCAUGHT   where set, errors that nobody catches do not end it
//   /         200 with the pid       /slow?…    is answered on SIGUSR1, by every generation
//   /fail     500                    /close     closes the listener, and listens again on SIGUSR1
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { handover } from '@handover/core'
import { behave } from './behaviour.mjs'
import { print, printEvents } from './print.mjs'

const read = (file, otherwise) => { try { return readFileSync(file, 'utf8').trim() } catch { return otherwise } }
if (process.env.HEARS_UNCAUGHT) process.on('uncaughtException', () => undefined)
printEvents(handover)
await behave(read(process.env.BEHAVIOUR_FILE, 'ok'), handover)

const held = []
let again = false
process.on('SIGUSR1', () => {
  for (const response of held.splice(0)) response.end(String(process.pid))
  if (again) server.listen(port, '127.0.0.1', () => { print('again') })
  again = false
})
const server = handover(http.createServer((request, response) => {
  const [path] = request.url.split('?')
  if (path === '/slow') {
    held.push(response)
    print('slow')
    return
  }
  if (path === '/close') {
    again = true
    response.setHeader('Connection', 'close').end()
    server.close(() => { setImmediate(() => { setImmediate(() => { print('rests') }) }) })
    setInterval(() => undefined, 60_000)
    return
  }
  response.statusCode = path === '/fail' ? 500 : 200
  response.end(String(process.pid))
}), { undoWindow: 1_000, linger: 200, ...JSON.parse(process.env.OPTIONS ?? '{}') })
server.on('upgrade', (request, socket) => { socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n') })
let port = 0
server.listen(0, '127.0.0.1', () => {
  port = server.address().port
  print('listening', { port })
})
