// A server in TypeScript of which Node needs only to strip the types (from 22.18 on).
import http, { type Server } from 'node:http'
import { referenceHandler } from '@handover/load'

const server: Server = http.createServer(referenceHandler('1'))
server.listen(Number(process.env['PORT']), '127.0.0.1')
