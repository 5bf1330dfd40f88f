/** The probe, against real servers that are given the other end of a socket pair as a worker gives it to its own. */

import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import { openSync } from 'node:fs'
import { socketPair } from '@handover/core/fd'
import { describe, expect, it, onTestFinished } from 'vitest'
import { probe, type ProbeProtocol, type ProbeRequest } from '../../helpers/internals.js'
import { openFds } from '../../helpers/fd-peer/support.js'
import { certificate } from '../../programs/certificate.mjs'

type Answer = (request: http.IncomingMessage, response: http.ServerResponse) => void
const protocols: readonly ProbeProtocol[] = ['http', 'https', 'http2', 'http2-tls']

function server(protocol: ProbeProtocol, answer: Answer): net.Server {
  const both = answer as unknown as (request: http2.Http2ServerRequest, response: http2.Http2ServerResponse) => void
  if (protocol === 'http') return http.createServer(answer)
  if (protocol === 'https') return https.createServer(certificate(), answer)
  if (protocol === 'http2') return http2.createServer(both)
  return http2.createSecureServer(certificate(), both)
}

/** What the probe says of a server, or of whoever gets the other end; and nothing stays open. */
async function probed(
  protocol: ProbeProtocol, other: net.Server | ((socket: net.Socket) => void), more: Partial<ProbeRequest> = {}
): Promise<string | undefined> {
  const before = openFds()
  const [mine, theirs] = socketPair()
  const socket = new net.Socket({ fd: theirs })
  socket.on('error', () => undefined)
  onTestFinished(() => { socket.destroy() })
  if (other instanceof net.Server) other.emit('connection', socket)
  else other(socket)
  const problem = await probe(mine, { protocol, path: '/healthz', deadlineMs: 20_000, ...more })
  socket.destroy()
  await expect.poll(openFds).toBe(before)
  if (problem !== undefined) expect(problem).toMatch(/^(was|failed|could) [^\n]+[^.\n]$/)
  return problem
}

describe.for(protocols)('the probe of a server of %s', (protocol) => {
  const reasonFor = (answer: Answer, more?: Partial<ProbeRequest>): Promise<string | undefined> =>
    probed(protocol, server(protocol, answer), more)

  it('takes any 2xx with its whole body, and asks as a client would', async () => {
    for (const status of [200, 204, 299]) {
      let asked: unknown
      const problem = await reasonFor((request, response) => {
        asked = [request.method, request.url, request.headers[':authority'] ?? request.headers.host, request.headers['user-agent']]
        response.writeHead(status)
        response.end(status === 204 ? undefined : 'x'.repeat(100_000))
      }, { path: '/healthz?deep=1' })
      expect(problem).toBeUndefined()
      expect(asked).toEqual(['GET', '/healthz?deep=1', expect.stringMatching(/^localhost(:80|:443)?$/), 'handover'])
    }
  })

  it('takes a 2xx after an informational answer, and one whose body never ends', async () => {
    expect(await reasonFor((_request, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' })
      response.end('ok')
    })).toBeUndefined()
    expect(await reasonFor((_request, response) => {
      const write = (): void => { while (!response.destroyed && response.write(Buffer.alloc(65_536))); }
      response.on('drain', write).on('error', () => undefined)
      write()
    })).toBeUndefined()
  })

  it.for([301, 302, 304, 404, 500, 503])('does not take %i', async (status) => {
    expect(await reasonFor((_request, response) => { response.writeHead(status, { location: '/' }).end() })).toBe(`was answered ${status}, which is not 2xx`)
  })

  it('does not take an answer that does not come, or does not end, before the deadline', async () => {
    expect(await reasonFor(() => undefined, { deadlineMs: 100 })).toBe('was not answered within 100 ms')
    expect(await reasonFor((_request, response) => { response.write('half') }, { deadlineMs: 100 })).toBe('was not answered within 100 ms')
    const nobody = await probed(protocol, () => undefined, { deadlineMs: 100 })
    expect(nobody).toBe('was not answered within 100 ms')
  })

  it('does not take an answer that breaks off', async () => {
    const cut = await reasonFor((_request, response) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('half', () => {
        const { stream } = response as unknown as { stream?: http2.Http2Stream }
        if (stream) stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
        else response.destroy()
      })
    })
    expect(cut).toMatch(/^was answered 200, but the body broke off after \d+ bytes$|^was answered with what is not good HTTP\/2 \(.*INTERNAL_ERROR\)$/)
  })

  it('does not take a connection that is closed or reset without an answer', async () => {
    const closed = await probed(protocol, (socket) => { socket.resume().once('data', () => socket.end()) })
    expect(closed).toMatch(/^was closed without an answer$|^was reset/)
    const destroyed = await probed(protocol, (socket) => { socket.destroy() })
    expect(destroyed).toMatch(/^was closed without an answer$|^was reset/)
    expect(await reasonFor((request) => { request.socket.destroy() })).toMatch(/^was closed without an answer$|^was reset/)
  })

  it('does not take garbage', async () => {
    const result = await probed(protocol, (socket) => { socket.resume().end('220 mail.example ESMTP ready\r\n\r\n'.repeat(10)) })
    expect(result).toMatch(/^was answered with what is not|^failed in TLS/)
  })

  it('says what cannot be sent, and closes the descriptor', async () => {
    if (!protocol.startsWith('http2')) expect(await probed(protocol, () => undefined, { path: '/a b' })).toMatch(/^could not be sent/)
    const before = openFds()
    expect(await probe(openSync('/dev/null', 'r'), { protocol, path: '/', deadlineMs: 100 })).toMatch(/./)
    expect(await probe(999_999, { protocol, path: '/', deadlineMs: 100 })).toMatch(/could not be sent/)
    expect(openFds()).toBe(before)
  })
})

describe('the probe of a server of another protocol than it was told', () => {
  it.for(protocols.flatMap((told) => protocols.filter((is) => is !== told).map((is) => [told, is] as const)))('is a no: told %s, is %s', async ([told, is]) => {
    expect(await probed(told, server(is, (_request, response) => { response.end('ok') }), { deadlineMs: 1_000 })).toMatch(/./)
  })
})
