/** The server of `bench http`: its handler does nothing. It has Handover by itself with ADAPTER=1 only. */

import { readFileSync } from 'node:fs'
import http from 'node:http'

const { APP_VERSION_FILE: versionFile, PORT: port, ADAPTER: adapter } = process.env
const headers = { 'x-version': readFileSync(versionFile!, 'utf8').trim(), 'x-pid': process.pid }
const server = http.createServer((_request, response) => { response.writeHead(200, headers).end('ok') })
if (adapter === '1') (await import('@handover/core')).handover(server)
server.listen(Number(port), '127.0.0.1')
