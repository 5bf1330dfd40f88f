// A server whose shared state a test writes, anew for each generation: APP is the path of a module whose default export is called before listen() with
// { handover, print, memory, server, routes, says }. `says(name, …)` runs the code that the test has in the file `name` beside it at that moment. `memory` is an object that the module's sections fill; GET /memory answers it. Everything else is as in server.mjs.
//   OPTIONS   JSON of HandoverOptions
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { inspect } from 'node:util'
import { handover } from '@handover/core'
import { referenceHandler } from '@handover/load'
import { print, printEvents } from './print.mjs'

const { default: app } = await import(process.env.APP)
const contract = referenceHandler(process.env.VERSION ?? '1')
printEvents(handover)
const memory = { counted: 0 }
const routes = {
  '/memory': () => ({ ...memory, text: inspect(memory, { depth: 5 }) }),
  '/count': () => ({ counted: ++memory.counted }),
  '/service': () => ({ ...handover.service })
}
const server = http.createServer(async (request, response) => {
  response.setHeader('x-generation', String(handover.generation))
  const route = routes[request.url]
  if (!route) {
    contract(request, response)
    return
  }
  response.setHeader('x-pid', String(process.pid))
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(await route(), (_key, value) => (typeof value === 'bigint' ? `${value}n` : value)))
})
handover(server, { undoWindow: 100, drainTimeout: 15_000, ...JSON.parse(process.env.OPTIONS ?? '{}') })
process.on('SIGUSR2', () => { print('memory', { memory: inspect(memory, { depth: 5 }) }) })
const says = (name, ...args) => new Function('args', 'memory', 'handover', 'require', readFileSync(path.join(path.dirname(process.env.APP), name), 'utf8'))(args, memory, handover, createRequire(import.meta.url))
await app({ says, handover, print, memory, server, routes })
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => { print('listening', { address: server.address() }) })
