// A server for what must not stop one that serves. WHAT: throwing-log. Routes: / and /quick answer at once, /held when this process gets SIGUSR2.
import http from 'node:http'
import { handover } from '@handover/core'
import { print, printEvents } from './print.mjs'

printEvents(handover)
const held = []
process.on('SIGUSR2', () => { for (const res of held.splice(0)) res.end('held') })
const server = http.createServer((req, res) => {
  if (req.url !== '/held') return res.end(`${req.url === '/quick' ? 'quick ' : ''}${process.pid}`)
  held.push(res)
  print('held')
})
handover(server, {
  undoWindow: 0,
  ...JSON.parse(process.env.OPTIONS ?? '{}'),
  ...(process.env.WHAT === 'throwing-log' && { log() { throw new Error('the log is closed') } })
})
server.listen(0, '127.0.0.1', () => { print('listening', { port: server.address().port }) })
