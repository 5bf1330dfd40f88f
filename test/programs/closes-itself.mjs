// A server with a close hook that closes it, as a framework's own closing does.
import http from 'node:http'
import { promisify } from 'node:util'
import { handover } from '@handover/core'

const server = handover(http.createServer((req, res) => res.end('ok')), {
  onClose: async () => {
    console.log(`listens: ${server.listening}`)
    await promisify(server.close.bind(server))()
    console.log(`closed, listens: ${server.listening}`)
    await promisify(server.close.bind(server))().catch(({ code }) => { console.log(`again: ${code}`) })
  }
})
server.listen(0, '127.0.0.1', () => { console.log('serves') })
