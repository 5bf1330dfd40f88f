/**
 * Asks a server of test/programs/listeners.mjs which process answers: over a connection of its own, in the server's protocol.
 */

import dgram from 'node:dgram'
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'

export type Kind = 'net' | 'http' | 'https' | 'http2' | 'http2-clear' | 'udp4' | 'udp6'

export type Place = string | { readonly port: number; readonly host?: string }

const target = (place: Place): { path: string } | { port: number; host: string } =>
  typeof place === 'string' ? { path: place } : { port: place.port, host: place.host ?? '127.0.0.1' }

async function askHttp(module: typeof http | typeof https, place: Place, path: string): Promise<{ status: number; body: string }> {
  const where = target(place)
  const to = 'path' in where ? { socketPath: where.path } : { host: where.host, port: where.port }
  const request = module.get({ ...to, path, agent: false, ...(module === https && { rejectUnauthorized: false }) })
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  let body = ''
  for await (const chunk of response.setEncoding('utf8')) body += String(chunk)
  return { status: response.statusCode ?? 0, body }
}

export const get = async (place: Place, path = '/'): Promise<{ status: number; body: string }> => await askHttp(http, place, path)
export const getSecure = async (place: Place, path = '/'): Promise<{ status: number; body: string }> => await askHttp(https, place, path)

/** One request over HTTP/2, on a session of its own. */
export async function getHttp2(place: Place, secure: boolean, path = '/'): Promise<string> {
  const where = target(place)
  const session = http2.connect(secure ? 'https://localhost' : 'http://localhost', {
    rejectUnauthorized: false,
    ...(secure ? where : { createConnection: () => net.connect(where) })
  })
  try {
    return await new Promise<string>((resolve, reject) => {
      session.on('error', reject)
      let body = ''
      session.request({ ':path': path }).setEncoding('utf8').on('error', reject).on('data', (text: string) => { body += text }).on('end', () => { resolve(body) }).end()
    })
  } finally {
    session.destroy()
  }
}

/** The pid that a server of `kind` at `place` answers with. */
export async function ask(kind: Kind, place: Place): Promise<number> {
  switch (kind) {
    case 'net': {
      const socket = net.connect(target(place)).setEncoding('utf8')
      let text = ''
      for await (const chunk of socket) text += String(chunk)
      return Number(text)
    }
    case 'http': return Number((await get(place)).body)
    case 'https': return Number((await getSecure(place)).body)
    case 'http2': return Number(await getHttp2(place, true))
    case 'http2-clear': return Number(await getHttp2(place, false))
    case 'udp4':
    case 'udp6': {
      if (typeof place === 'string') throw new Error('UDP has no paths')
      const socket = dgram.createSocket(kind)
      try {
        socket.send('who', place.port, place.host ?? (kind === 'udp4' ? '127.0.0.1' : '::1'))
        const [message] = await once(socket, 'message') as [Buffer]
        return Number(message.toString())
      } finally {
        socket.close()
      }
    }
  }
}

const firstPort = 10_000
const portsInBlock = 50
const blocks = 440
let ownPorts: number[] = []

/** Undefined where somebody listens there. */
async function listenOn(port: number): Promise<net.Server | undefined> {
  const server = net.createServer().listen(port)
  return await once(server, 'listening').then(() => server, () => undefined)
}

/** A block of ports that no other test process has: whoever listens on the first of them, which the kernel ends with the process. */
async function claimBlock(): Promise<number[]> {
  for (let tried = 0; tried < 10 * blocks; tried++) {
    const first = firstPort + Math.floor(Math.random() * blocks) * portsInBlock
    const claim = await listenOn(first)
    claim?.unref()
    if (claim) return Array.from({ length: portsInBlock - 1 }, (_, index) => first + 1 + index)
  }
  throw new Error('no free block of ports')
}

/**
 * Ports that nobody listens on, IPv4 or IPv6, and that no other test takes. They lie below those that the kernel gives to port 0 and to
 * clients (ip(7), ip_local_port_range), or one of these could take them before the program does.
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = []
  while (ports.length < count) {
    if (ownPorts.length === 0) ownPorts = await claimBlock()
    const port = ownPorts.shift()!
    const server = await listenOn(port)
    if (!server) continue
    await once(server.close(), 'close')
    ports.push(port)
  }
  return ports
}

/** 'ok', or the code of the error that a connect gets. */
export async function connects(place: Place): Promise<string> {
  const socket = net.connect(target(place))
  return await new Promise((resolve) => {
    socket.once('connect', () => { resolve('ok') }).once('error', (error: NodeJS.ErrnoException) => { resolve(error.code ?? '') })
  }).finally(() => { socket.destroy() }) as string
}
