/**
 * Connections of an https server move: the client sees no close, its next answer comes from the successor, and the
 * program sees there what it saw before.
 */

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import https from 'node:https'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import tls from 'node:tls'
import { expect, onTestFinished, test } from 'vitest'
import { certificate } from '../../programs/certificate.mjs'
import { ask, goesOn, Moving } from '../../helpers/moving.js'

/** Copies of connections that have moved are closed after this time. */
const closedBy = 500

const movedTls = { connections: { kinds: { https: { moved: 1, drained: 0, closedIdle: 0, cut: 0 } }, stayed: {} } }

test('an idle connection goes through four generations', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const idle = await moving.idleClient()
  for (const generation of [2, 3, 4]) {
    await moving.reload()
    await moving.arrived(1, generation)
    await goesOn(idle, generation)
  }
  expect(await moving.report()).toMatchObject(movedTls)
})

test('a connection on which nothing was sent yet moves', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const fresh = await moving.client()
  await moving.arrived(1, 1)
  await moving.reload()
  await moving.arrived(1)
  await goesOn(fresh)
  expect(await moving.report()).toMatchObject(movedTls)
})

test('a connection whose handshake comes while the old process drains moves when it is over', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const secure = await moving.handshakeAfterReload()
  await moving.arrived(1)
  await goesOn(secure)
  expect(await moving.report()).toMatchObject(movedTls)
})

test.for([['an option', { options: { move: { tls: false } } }], ['HANDOVER_MOVE=plain', { env: { HANDOVER_MOVE: 'plain' } }]] as const)(
  '%s turns it off', async ([, how]) => {
    const moving = await Moving.start({ kind: 'https', ...how })
    const idle = await moving.idleClient()
    await moving.reload()
    expect((await ask(idle, '/')).headers.get('connection')).toBe('close')
    expect(await moving.report()).toMatchObject({ connections: { moved: 0, drained: 1, stayed: { TLS: 1 } } })
  }
)

const suites = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']

test.for(suites)('clients with %s send bodies of 0 to 200 KB through reloads: none is lost, and no connection is closed', async (ciphers) => {
  const moving = await Moving.start({ kind: 'https' })
  const { port } = moving.addresses[0] as { port: number }
  const clients = 20
  const options = { keepAlive: true, maxSockets: 1, rejectUnauthorized: false, ciphers }
  const agents = Array.from({ length: clients }, () => new https.Agent(options))
  let opened = 0
  let answered = 0
  let over = false
  const post = (agent: https.Agent, body: Buffer): Promise<string> => new Promise((resolve, reject) => {
    const to = { port, host: '127.0.0.1', path: '/hash', method: 'POST', agent, headers: { 'Content-Length': body.length } }
    const request = https.request(to, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).on('end', () => { resolve(text) }).on('error', reject)
    })
    request.on('socket', (socket) => { if (!seen.has(socket)) { seen.add(socket); opened++ } }).on('error', reject).end(body)
  })
  const seen = new Set<object>()
  const work = agents.map(async (agent, index) => {
    for (let turn = 0; !over || turn < 5; turn++) {
      const body = randomBytes((turn * 37_501 + index * 9_973) % 200_001)
      expect(await post(agent, body)).toBe(`${body.length} ${createHash('sha256').update(body).digest('hex')}`)
      answered++
      await new Promise((resolve) => { setTimeout(resolve, index % 3 === 0 ? 0 : 20) })
    }
  })
  const all = Promise.all(work)
  all.catch(() => undefined)
  for (let reload = 0; reload < 4; reload++) {
    await moving.reload()
    await new Promise((resolve) => { setTimeout(resolve, 300) })
  }
  over = true
  await all
  expect({ opened, enough: answered >= clients * 5 }).toEqual({ opened: clients, enough: true })
  for (const agent of agents) agent.destroy()
})

test('after a move the program reads of the connection what it read before', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const idle = await moving.idleClient()
  const before = (await ask(idle, '/tls')).body
  expect(JSON.parse(before)).toMatchObject({ encrypted: true, authorized: false, protocol: 'TLSv1.3' })
  await moving.reload()
  await moving.arrived(1)
  expect((await ask(idle, '/tls')).body).toBe(before)
  await goesOn(idle)
})

/** A server that asks its clients for certificates, and one client that shows one, over one connection. */
async function startAskingForCertificates(): Promise<{ moving: Moving; get: (path: string) => Promise<string> }> {
  const { key, cert } = certificate()
  const moving = await Moving.start({ kind: 'https', server: { requestCert: true, rejectUnauthorized: false, ca: String(cert) } })
  const { port } = moving.address as { port: number }
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, key, cert, rejectUnauthorized: false, servername: 'localhost' })
  onTestFinished(() => { agent.destroy() })
  const get = (path: string): Promise<string> => new Promise((resolve, reject) => {
    https.get({ port, host: '127.0.0.1', path, agent }, (response) => {
      response.toArray().then((chunks) => { resolve(chunks.join('')) }, reject)
    }).on('error', reject)
  })
  return { moving, get }
}

test('a client with a certificate is as authorized as before, and its certificate is the same', async () => {
  const { moving, get } = await startAskingForCertificates()
  const before = await get('/tls')
  const fingerprint256 = expect.stringMatching(/^[0-9A-F:]{95}$/)
  expect(JSON.parse(before)).toMatchObject({ authorized: true, servername: 'localhost', certificate: { subject: { CN: 'localhost' }, fingerprint256 } })
  for (const generation of [2, 3]) {
    await moving.reload()
    await moving.arrived(1, generation)
    expect(JSON.parse(await get('/tls'))).toEqual(JSON.parse(before))
  }
})

test('a program that goes on after its answer can still ask for the certificate of its client', async () => {
  const { moving, get } = await startAskingForCertificates()
  const answer = await get('/after')
  expect(answer).toBe('generation 1 answers /after')
  const busy = await moving.client()
  busy.request('/held')
  await moving.began('/held')
  await moving.reload()
  await moving.arrived(1)
  await wait(closedBy)
  moving.release()
  expect(await moving.program.event('after')).toMatchObject({ client: 'localhost', cipher: 'TLS_AES_256_GCM_SHA384', protocol: 'TLSv1.3' })
})

test('a client that was never asked for a certificate does not move to a version that asks for one, and is told to go', async () => {
  const { cert } = certificate()
  const moving = await Moving.start({ kind: 'https', next: { kind: 'https', server: { requestCert: true, ca: String(cert) } } })
  const client = await moving.idleClient()
  await moving.reload()
  const last = await ask(client, '/')
  expect(last).toMatchObject({ status: 200, body: 'generation 1 answers /' })
  expect(last.headers.get('connection')).toBe('close')
  expect(await moving.report({ complains: true })).toMatchObject({ connections: { open: 1, moved: 0, stayed: { 'given back by the successor': 1 } } })
})

test('a client that was asked for a certificate, has none and was let in moves', async () => {
  const { cert } = certificate()
  const moving = await Moving.start({ kind: 'https', server: { requestCert: true, rejectUnauthorized: false, ca: String(cert) } })
  const client = await moving.idleClient()
  await moving.reload()
  await moving.arrived(1)
  await goesOn(client)
  expect(await moving.report()).toMatchObject({ connections: { open: 1, moved: 1 } })
})

test('a record with a wrong MAC closes the connection after the move, and no other', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const { port } = moving.address as { port: number }
  const other = await moving.idleClient()
  const raw = net.connect(port, '127.0.0.1')
  const secure = tls.connect({ socket: raw, rejectUnauthorized: false })
  secure.on('error', () => undefined)
  await once(secure, 'secureConnect')
  const answer = once(secure, 'data')
  secure.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await answer
  await moving.reload()
  await moving.arrived(2)
  const closed = once(secure, 'close')
  raw.write(Buffer.concat([Buffer.from([23, 3, 3, 0, 32]), Buffer.alloc(32, 1)]))
  await closed
  await goesOn(other)
})

test('the debug lines of a move have no key in them', async () => {
  const moving = await Moving.start({ kind: 'https', env: { NODE_DEBUG: 'handover' } })
  const idle = await moving.idleClient()
  const { exporter } = JSON.parse((await ask(idle, '/tls')).body) as { exporter: string }
  await moving.reload()
  await moving.arrived(1)
  await goesOn(idle)
  expect(exporter).toMatch(/^[0-9a-f]{64}$/)
  const line = moving.program.stderr.split('\n').find((text) => text.includes('"tls"')) ?? ''
  expect(line).not.toMatch(/[0-9a-f]{64}|[A-Za-z0-9+/]{43}=/)
})
