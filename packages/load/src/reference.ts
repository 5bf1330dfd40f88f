/**
 * The contract between the load client and every example and fixture server, and a server that keeps it.
 *
 *   GET  /                        200, small JSON object with `version`
 *   GET  /slow?ms=300             the same, after that many milliseconds
 *   POST /echo                    200, JSON object: `sha256` (hex) and `length` (bytes) of the request's body
 *   GET  /stream?chunks=10&ms=50  200, chunked; chunk i (from 0) is `chunk ${i}\n`, that many milliseconds between two
 *
 * Every answer carries `x-version` (of the code, as read at boot) and `x-pid`; it may carry `x-generation`, and echo
 * `x-request-id`. A server that lacks a route answers 404 to it: the client then leaves that kind of traffic out.
 */

import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { streamChunk } from './client/requests.js'

/** For `http.createServer(referenceHandler('1.0.0'))`. */
export function referenceHandler(version: string): (req: IncomingMessage, res: ServerResponse) => void {
  const small = JSON.stringify({ version, pid: process.pid })

  async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const url = new URL(req.url ?? '/', 'http://localhost')
    const number = (name: string, otherwise: number): number => Number(url.searchParams.get(name) ?? otherwise)
    res.setHeader('x-version', version).setHeader('x-pid', process.pid)
    if (req.headers['x-request-id'] !== undefined) res.setHeader('x-request-id', req.headers['x-request-id'])
    const sendJson = (text: string): void => {
      res.setHeader('content-type', 'application/json').setHeader('content-length', Buffer.byteLength(text)).end(text)
    }
    switch (`${req.method} ${url.pathname}`) {
      case 'GET /':
        return sendJson(small)
      case 'GET /slow':
        await wait(number('ms', 300))
        return sendJson(small)
      case 'POST /echo': {
        const hash = createHash('sha256')
        let length = 0
        for await (const chunk of req as AsyncIterable<Buffer>) {
          hash.update(chunk)
          length += chunk.length
        }
        return sendJson(JSON.stringify({ sha256: hash.digest('hex'), length }))
      }
      case 'GET /stream':
        for (let index = 0; index < number('chunks', 10); index++) {
          if (index > 0) await wait(number('ms', 50))
          res.write(streamChunk(index))
        }
        res.end()
        return
      default:
        res.statusCode = 404
        return sendJson('{"error":"no such route"}')
    }
  }

  return (req, res) => {
    answer(req, res).catch(() => res.destroy())
  }
}
