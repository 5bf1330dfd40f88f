/**
 * The server of `bench counts`: answers `ok`. Each process writes `{ pid, port }` to stdout when it serves; SIGHUP reloads it, SIGTERM ends
 * it.
 */

import http from 'node:http'
import { once } from 'node:events'
import type net from 'node:net'
import { handover } from '@handover/core'

const server = handover(http.createServer({ keepAliveTimeout: 65_000 }, (_request, response) => { response.end('ok') }), { undoWindow: 0 })
server.listen(0, '127.0.0.1')
while (handover.state !== 'serving') await once(handover.events, 'state')
process.stdout.write(`${JSON.stringify({ pid: process.pid, port: (server.address() as net.AddressInfo).port })}\n`)
