/**
 * The requests of each kind of traffic, and what a right answer to each is. The other half of the contract is reference.ts.
 *
 * Pure apart from the digest: it knows no socket and no time. Each request carries an `x-request-id`; a server that echoes
 * it (it need not) lets the client see an answer that went to the wrong request.
 */

import { createHash } from 'node:crypto'
import type { Answer } from './answer.js'
import type { Random } from './random.js'
import type { Target } from './target.js'

export const kinds = ['keep-alive', 'new', 'slow', 'post', 'stream', 'pipelined'] as const

/**
 * `keep-alive`: GETs on one connection. `new`: a connection for each GET. `slow`: GETs of a slow resource, `post`: POSTs
 * whose body goes in two halves with a pause between (or at once), `stream`: GETs of a body that comes in chunks over a while, all three
 * on keep-alive connections. `pipelined`: several GETs in one write.
 */
export type Kind = typeof kinds[number]

export interface Request {
  readonly head: Buffer
  /** The second half, sent `pauseMs` after the first. */
  readonly rest?: Buffer
  readonly pauseMs?: number
  /** What is wrong with the answer, or undefined when it is right. The status has been looked at. */
  readonly check: (answer: Answer) => string | undefined
}

/** How requests of each kind differ; see LoadOptions for the meaning and the defaults. */
export interface RequestShape {
  readonly path: string
  readonly ms: number
  readonly chunks: number
  readonly bytes: number
  readonly pauseMs: number
}

/** The chunk number `index` (from 0) of the answer to GET /stream. */
export function streamChunk(index: number): string {
  return `chunk ${index}\n`
}

/** A function that makes the next request of a client. `id` must be unlike that of any other client. */
export function requestsOf(kind: Kind, shape: RequestShape, target: Target, id: string, random: Random): () => Request {
  const host = 'path' in target ? 'localhost' : `${target.host.includes(':') ? `[${target.host}]` : target.host}:${target.port}`
  const connection = kind === 'new' ? 'connection: close\r\n' : ''
  let count = 0
  const build = (method: string, path: string, check: (answer: Answer) => string | undefined, more = ''): Request => {
    const requestId = `${id}-${count++}`
    const head = Buffer.from(`${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${connection}x-request-id: ${requestId}\r\n${more}\r\n`, 'latin1')
    return { head, check: (answer) => wrongId(answer, requestId) ?? check(answer) }
  }
  switch (kind) {
    case 'keep-alive':
    case 'new':
    case 'pipelined':
      return () => build('GET', shape.path, wrongVersion)
    case 'slow':
      return () => build('GET', `/slow?ms=${shape.ms}`, wrongVersion)
    case 'stream': {
      const expected = Buffer.from(Array.from({ length: shape.chunks }, (_, index) => streamChunk(index)).join(''))
      return () => build('GET', `/stream?chunks=${shape.chunks}&ms=${shape.ms}`, ({ body }) => wrongStream(body, expected))
    }
    case 'post':
      return () => {
        const body = Buffer.from(Array.from({ length: shape.bytes }, () => Math.floor(random() * 256)))
        const sha256 = createHash('sha256').update(body).digest('hex')
        const fields = `content-type: application/octet-stream\r\ncontent-length: ${body.length}\r\n`
        const request = build('POST', '/echo', (answer) => wrongDigest(answer, sha256, body.length), fields)
        if (shape.pauseMs === 0) return { ...request, head: Buffer.concat([request.head, body]) }
        const half = body.length >> 1
        return {
          ...request, head: Buffer.concat([request.head, body.subarray(0, half)]), rest: body.subarray(half), pauseMs: shape.pauseMs
        }
      }
  }
}

function wrongId(answer: Answer, requestId: string): string | undefined {
  const found = answer.headers.get('x-request-id')
  return found === undefined || found === requestId ? undefined : `the answer to request ${found}, not to ${requestId}`
}

/** The body of an answer of the contract says the version that its header says; any other body is right as it is. */
function wrongVersion(answer: Answer): string | undefined {
  const header = answer.headers.get('x-version')
  if (header === undefined || !(answer.headers.get('content-type') ?? '').includes('json')) return undefined
  const found = parseObject(answer.body)
  if (found === undefined) return `a JSON object was expected, found ${shown(answer.body)}`
  return found['version'] === undefined || found['version'] === header ? undefined : `version ${JSON.stringify(found['version'])} in the body, ${header} in the header`
}

function wrongDigest(answer: Answer, sha256: string, length: number): string | undefined {
  const found = parseObject(answer.body)
  if (found?.['sha256'] === sha256 && found['length'] === length) return undefined
  return `sha256 ${sha256.slice(0, 12)}… of ${length} bytes was expected, found ${shown(answer.body)}`
}

function wrongStream(body: Buffer, expected: Buffer): string | undefined {
  if (body.equals(expected)) return undefined
  const differs = expected.findIndex((byte, index) => byte !== body[index])
  const at = differs === -1 ? expected.length : differs
  return `the body differs from byte ${at} on: ${body.length} bytes came, ${expected.length} were expected, found ${shown(body.subarray(at))}`
}

function parseObject(body: Buffer): Record<string, unknown> | undefined {
  try {
    const found: unknown = JSON.parse(body.toString())
    return typeof found === 'object' && found !== null ? found as Record<string, unknown> : undefined
  } catch {
    return undefined
  }
}

function shown(body: Buffer): string {
  return JSON.stringify(body.toString('latin1', 0, 80))
}
