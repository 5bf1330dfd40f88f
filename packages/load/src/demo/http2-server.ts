/**
 * The server of `demo --http2`, over TLS with the files KEY and CERT. Its answers can be checked: x-hash is of the body that came, and the
 * body of the answer is `bytes` long and begins with ?seed.
 */

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http2 from 'node:http2'
import { handover } from '@handover/core'

const version = readFileSync(process.env['APP_VERSION_FILE']!, 'utf8').trim()

const { KEY, CERT } = process.env

function answer(request: http2.Http2ServerRequest, response: http2.Http2ServerResponse): void {
  const url = new URL(request.url, 'http://localhost')
  const [bytes = 0, ms, seed = 0] = ['bytes', 'ms', 'seed'].map((name) => Number(url.searchParams.get(name)))
  const hash = createHash('sha256')
  request.on('data', (chunk: Buffer) => { hash.update(chunk) }).on('end', () => {
    setTimeout(() => {
      const { 'x-thing': thing = '' } = request.headers
      response.writeHead(200, { 'x-version': version, 'x-pid': String(process.pid), 'x-hash': hash.digest('hex'), 'x-echo': thing })
      const body = Buffer.alloc(bytes, 'body')
      if (bytes >= 4) body.writeUInt32BE(seed)
      response.end(body)
    }, ms)
  })
}

const server = KEY === undefined
  ? http2.createServer(answer)
  : http2.createSecureServer({ key: readFileSync(KEY), cert: readFileSync(CERT!) }, answer)
handover(server)
server.listen(Number(process.env['PORT']), '127.0.0.1')
