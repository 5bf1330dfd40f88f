/** The probe, against real servers that are given the other end of a socket pair as a worker gives it to its own. */

import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import { openSync } from 'node:fs'
import { socketPair } from '@handover/core/fd'
import { describe, expect, it, onTestFinished } from 'vitest'
import { probe, type ProbeProtocol, type ProbeRequest, type ProbeResult } from '../../helpers/internals.js'
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
): Promise<ProbeResult> {
  const before = openFds()
  const [mine, theirs] = socketPair()
  const socket = new net.Socket({ fd: theirs })
  socket.on('error', () => undefined)
  onTestFinished(() => { socket.destroy() })
  if (other instanceof net.Server) other.emit('connection', socket)
  else other(socket)
  const result = await probe(mine, { protocol, path: '/healthz', host: 'app.example', deadlineMs: 20_000, ...more })
  socket.destroy()
  await expect.poll(openFds).toBe(before)
  if (!result.ok) expect(result.reason).toMatch(/^(was|failed|could) [^\n]+[^.\n]$/)
  return result
}

describe.for(protocols)('the probe of a server of %s', (protocol) => {
  const reasonFor = async (answer: Answer, more?: Partial<ProbeRequest>): Promise<string> => {
    const result = await probed(protocol, server(protocol, answer), more)
    return result.ok ? `ok ${result.status}` : result.reason
  }

  it('takes any 2xx with its whole body, and asks as a client would', async () => {
    for (const status of [200, 204, 299]) {
      let asked: unknown
      const result = await probed(protocol, server(protocol, (request, response) => {
        asked = [request.method, request.url, request.headers[':authority'] ?? request.headers.host, request.headers['user-agent']]
        response.writeHead(status)
        response.end(status === 204 ? undefined : 'x'.repeat(100_000))
      }), { path: '/healthz?deep=1', host: 'app.example:3000' })
      expect(result).toEqual({ ok: true, status })
      expect(asked).toEqual(['GET', '/healthz?deep=1', 'app.example:3000', 'handover'])
    }
  })

  it('takes a host that is an address', async () => {
    for (const host of ['127.0.0.1', '127.0.0.1:3000', '[::1]:3000']) expect(await reasonFor((_request, response) => { response.end('ok') }, { host })).toBe('ok 200')
  })

  it('takes a 2xx after an informational answer, and one whose body never ends', async () => {
    expect(await reasonFor((_request, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' })
      response.end('ok')
    })).toBe('ok 200')
    expect(await reasonFor((_request, response) => {
      const write = (): void => { while (!response.destroyed && response.write(Buffer.alloc(65_536))); }
      response.on('drain', write).on('error', () => undefined)
      write()
    })).toBe('ok 200')
  })

  it.for([301, 302, 304, 404, 500, 503])('does not take %i', async (status) => {
    expect(await reasonFor((_request, response) => { response.writeHead(status, { location: '/' }).end() })).toBe(`was answered ${status}, which is not 2xx`)
  })

  it('does not take an answer that does not come, or does not end, before the deadline', async () => {
    expect(await reasonFor(() => undefined, { deadlineMs: 100 })).toBe('was not answered within 100 ms')
    expect(await reasonFor((_request, response) => { response.write('half') }, { deadlineMs: 100 })).toBe('was not answered within 100 ms')
    const nobody = await probed(protocol, () => undefined, { deadlineMs: 100 })
    expect(nobody).toEqual({ ok: false, reason: 'was not answered within 100 ms' })
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
    expect(closed).toMatchObject({ ok: false })
    expect(closed).toMatchObject({ reason: expect.stringMatching(/^was closed without an answer$|^was reset/) as string })
    const destroyed = await probed(protocol, (socket) => { socket.destroy() })
    expect(destroyed).toMatchObject({ ok: false, reason: expect.stringMatching(/^was closed without an answer$|^was reset/) as string })
    expect(await reasonFor((request) => { request.socket.destroy() })).toMatch(/^was closed without an answer$|^was reset/)
  })

  it('does not take garbage', async () => {
    const result = await probed(protocol, (socket) => { socket.resume().end('220 mail.example ESMTP ready\r\n\r\n'.repeat(10)) })
    expect(result).toMatchObject({ ok: false, reason: expect.stringMatching(/^was answered with what is not|^failed in TLS/) as string })
  })

  it('says what cannot be sent, and closes the descriptor', async () => {
    expect(await probed(protocol, () => undefined, { host: 'a b\r\n' })).toMatchObject({ ok: false, reason: expect.stringContaining('could not be sent') as string })
    const before = openFds()
    expect(await probe(openSync('/dev/null', 'r'), { protocol, path: '/', host: 'a', deadlineMs: 100 })).toMatchObject({ ok: false })
    expect(await probe(999_999, { protocol, path: '/', host: 'a', deadlineMs: 100 })).toMatchObject({ ok: false })
    expect(openFds()).toBe(before)
  })
})

describe('the probe of a server of another protocol than it was told', () => {
  it.for(protocols.flatMap((told) => protocols.filter((is) => is !== told).map((is) => [told, is] as const)))('is a no: told %s, is %s', async ([told, is]) => {
    expect(await probed(told, server(is, (_request, response) => { response.end('ok') }), { deadlineMs: 1_000 })).toMatchObject({ ok: false })
  })
})
