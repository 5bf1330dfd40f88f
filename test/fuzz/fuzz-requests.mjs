// What the clients of the fuzz ask and what must come back. Both sides know it from the request's number and its query: every body is a piece of
// one mass of bytes, at a place that the number gives, so that an answer of another request, or of another connection, is seen at its first byte.
import { Buffer } from 'node:buffer'
import { crc32 } from 'node:zlib'
import { Random } from './fuzz-random.mjs'

const massBytes = 4_194_304
const mass = Buffer.alloc(massBytes)
const massRandom = new Random(20_260_101)
for (let at = 0; at < massBytes; at += 4) mass.writeUInt32LE(Math.floor(massRandom.next() * 2 ** 32), at)

const mostAnswerBytes = 2_097_152

function bodyOf(id, length) {
  const at = (id * 2_654_435_761) % (massBytes - mostAnswerBytes)
  return mass.subarray(at, at + length)
}

const line = Buffer.from('\r\n')

/** Chunks at random borders, some with an extension, and a trailer now and then. */
function chunked(body, random) {
  const parts = []
  for (let at = 0; at < body.length;) {
    const size = Math.min(body.length - at, 1 + random.size(16_384))
    parts.push(Buffer.from(`${size.toString(16)}${random.chance(0.1) ? ';part=1' : ''}\r\n`), body.subarray(at, at + size), line)
    at += size
  }
  parts.push(Buffer.from(random.chance(0.1) ? '0\r\nx-last: yes\r\n\r\n' : '0\r\n\r\n'))
  return Buffer.concat(parts)
}

/** `slow`: the connection's client reads slowly, and is answered with more than the kernel takes. */
export function makeRequest(id, random, slow) {
  const upload = random.chance(0.5)
  const head = !upload && random.chance(0.15)
  const expect = upload && random.chance(0.1)
  const early = upload && random.chance(0.2)
  const large = slow && random.chance(0.15)
  const length = large ? random.between(300_000, 1_500_000) : random.size(random.chance(0.05) ? 200_000 : 3_000)
  const wait = random.chance(0.4) ? random.size(25) : 0
  const how = random.chance(0.4) ? 'chunked' : 'length'
  const pieces = large ? random.between(1, 3) : random.chance(0.2) ? random.between(2, 5) : 1
  const body = upload ? bodyOf(id, random.size(random.chance(0.05) ? 200_000 : 3_000)) : undefined
  const inChunks = upload && random.chance(0.5)

  const lines = [
    `${head ? 'HEAD' : upload ? 'POST' : 'GET'} /${id}?length=${length}&how=${how}&wait=${wait}&pieces=${pieces}${early ? '&early=1' : ''} HTTP/1.1`,
    'Host: fuzz',
    ...(random.chance(0.3) ? [`X-Padding: ${'p'.repeat(random.size(500))}`] : []),
    ...(upload ? [inChunks ? 'Transfer-Encoding: chunked' : `Content-Length: ${body.length}`] : []),
    ...(expect ? ['Expect: 100-continue'] : [])
  ]
  // RFC 9112, section 2.2: a server ignores an empty line before a request.
  const stray = random.chance(0.1) ? '\r\n' : ''
  return {
    id, length, head, expect, large,
    // What is not read before the answer cannot be in it.
    uploaded: upload && !early ? `${body.length} ${crc32(body)}` : 'nothing',
    sent: Buffer.from(`${stray}${lines.join('\r\n')}\r\n\r\n`),
    sentBody: !upload ? Buffer.alloc(0) : inChunks ? chunked(body, random) : body
  }
}

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms) })

/** The application on both servers. `carried` answers the number of requests that the connection has carried, this one included. */
export async function answer(request, response, carried) {
  const { pathname, searchParams } = new URL(request.url, 'http://fuzz')
  const id = Number(pathname.slice(1))
  const length = Number(searchParams.get('length'))
  response.setHeader('X-Id', id).setHeader('X-Carried', carried)
  let uploaded = 'nothing'
  if (request.method === 'POST' && !searchParams.has('early')) {
    let bytes = 0
    let sum = 0
    for await (const chunk of request) {
      bytes += chunk.length
      sum = crc32(chunk, sum)
    }
    uploaded = `${bytes} ${sum}`
  }
  const wait = Number(searchParams.get('wait'))
  if (wait > 0) await pause(wait)
  response.setHeader('X-Uploaded', uploaded)
  if (searchParams.get('how') === 'length') response.setHeader('Content-Length', length)
  if (request.method === 'HEAD') {
    response.end()
    return
  }
  const body = bodyOf(id, length)
  const pieces = Number(searchParams.get('pieces'))
  const size = Math.max(1, Math.ceil(length / pieces))
  for (let at = 0; at + size < length; at += size) {
    response.write(body.subarray(at, at + size))
    if (id % 3 > 0) await pause(id % 3)
  }
  response.end(body.subarray(Math.max(0, Math.ceil(length / size) - 1) * size))
}

/** What is wrong with an answer. */
class Wrong extends Error {}

/**
 * Reads the answers of one connection as they come, and takes nothing for granted: each must be that of the oldest request that has none, byte by
 * byte. `next` answers that request; `done` hears of each answer, `goOn` of a 100.
 */
export class AnswerReader {
  #rest = Buffer.alloc(0)
  #body
  #left = 0
  #chunks = false
  #state = 'head'
  #request
  #side

  constructor(side) {
    this.#side = side
  }

  feed(bytes) {
    let rest = this.#rest.length > 0 ? Buffer.concat([this.#rest, bytes]) : bytes
    for (;;) {
      if (this.#state === 'body') {
        const part = rest.subarray(0, this.#left)
        this.#take(part)
        rest = rest.subarray(part.length)
        if (this.#left > 0) break
        if (this.#chunks) this.#state = 'after chunk'
        else this.#end()
        continue
      }
      const end = rest.indexOf(this.#state === 'head' ? '\r\n\r\n' : '\r\n')
      if (end < 0) break
      const text = rest.toString('latin1', 0, end)
      rest = rest.subarray(end + (this.#state === 'head' ? 4 : 2))
      if (this.#state === 'head') this.#readHead(text)
      else if (this.#state === 'chunk') this.#readChunk(text)
      else if (text !== '') throw new Wrong(`found ${JSON.stringify(text.slice(0, 50))} after ${this.#state === 'last chunk' ? 'the last' : 'a'} chunk`)
      else if (this.#state === 'last chunk') this.#end()
      else this.#state = 'chunk'
    }
    // A copy: `bytes` may be a large buffer.
    this.#rest = Buffer.from(rest)
    if (this.#rest.length > 100_000) throw new Wrong('a line that does not end')
  }

  #readHead(text) {
    const request = this.#side.next()
    if (!request) throw new Wrong(`an answer that nobody asked for: ${JSON.stringify(text.slice(0, 100))}`)
    const [status, ...lines] = text.split('\r\n')
    if (status === 'HTTP/1.1 100 Continue' && request.expect && lines.length === 0) {
      this.#side.goOn(request)
      return
    }
    const headers = Object.fromEntries(lines.map((header) => header.split(': ', 2)).map(([name, value]) => [name.toLowerCase(), value]))
    const expected = { status: 'HTTP/1.1 200 OK', 'x-id': String(request.id), 'x-carried': String(request.carried), 'x-uploaded': request.uploaded, connection: 'keep-alive' }
    const found = { status, ...headers }
    for (const [name, value] of Object.entries(expected)) {
      if (found[name] !== value) throw new Wrong(`expected ${name} "${value}", found "${found[name]}"`)
    }
    const said = headers['content-length']
    if (said !== undefined && Number(said) !== request.length) throw new Wrong(`expected ${request.length} bytes, found content-length ${said}`)
    this.#request = request
    this.#body = bodyOf(request.id, request.length)
    this.#chunks = headers['transfer-encoding'] === 'chunked'
    if (!request.head && !this.#chunks && said === undefined) throw new Wrong('an answer without a length')
    if (request.head) {
      this.#body = this.#body.subarray(0, 0)
      this.#end()
    } else if (this.#chunks) {
      this.#state = 'chunk'
    } else {
      this.#left = request.length
      this.#state = 'body'
    }
  }

  #readChunk(text) {
    const size = Number.parseInt(text, 16)
    if (!(size >= 0)) throw new Wrong(`expected the size of a chunk, found ${JSON.stringify(text.slice(0, 50))}`)
    this.#left = size
    this.#state = size === 0 ? 'last chunk' : 'body'
  }

  #take(part) {
    if (part.compare(this.#body.subarray(0, part.length)) !== 0) throw new Wrong('other bytes than those that were asked for')
    this.#body = this.#body.subarray(part.length)
    this.#left -= part.length
  }

  #end() {
    if (this.#body.length > 0) throw new Wrong(`an answer that is ${this.#body.length} bytes short`)
    this.#state = 'head'
    this.#side.done(this.#request)
  }
}
