/** sendListener and receiveListener, with a process at each end and real connections. */

import { once } from 'node:events'
import { closeSync, existsSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { closeFds, describeFd, receiveFds, receiveListener, sendFds, sendListener, socketPair } from '@handover/core/fd'
import { describe, expect, it, onTestFinished } from 'vitest'
import { directory, files, openFds, pair, readAll, startNode, toThrowCode } from '../../helpers/fd-peer/support.js'

const fdOf = (server: net.Server): number => (server as unknown as { _handle: { fd: number } })._handle.fd

async function listening<S extends net.Server>(server: S, options: net.ListenOptions = { host: '127.0.0.1', port: 0 }): Promise<S> {
  server.listen(options)
  await once(server, 'listening')
  return server
}

const portOf = (server: net.Server): number => (server.address() as net.AddressInfo).port

async function close(server: net.Server): Promise<void> {
  server.close()
  await once(server, 'close')
}

/** The text of one answer on a new connection. */
async function get(where: http.RequestOptions): Promise<string> {
  const [answer] = await once(http.get({ ...where, agent: false }), 'response') as [http.IncomingMessage]
  let all = ''
  for await (const text of answer.setEncoding('utf8')) all += text as string
  return all
}

describe('a listener', () => {
  it('of net goes to another process that serves on it, and no connection is refused meanwhile', async () => {
    const peer = startNode('adopt', 'net')
    const server = await listening(net.createServer((socket) => { socket.end(`${process.pid}`) }))
    const port = portOf(server)
    const answers: string[] = []
    let over = false
    const clients = (async () => {
      while (!over) answers.push(await readAll({ port, host: '127.0.0.1' }))
    })()
    await sendListener(peer.connection, server, 'with a word')
    expect(await peer.said()).toMatchObject({
      address: { address: '127.0.0.1', port },
      data: 'with a word',
      description: { name: `tcp 127.0.0.1:${port}`, backlog: 511 },
      found: { listening: true, backlog: 511 }
    })
    await close(server)
    expect(await readAll({ port, host: '127.0.0.1' })).toBe(`${peer.pid}`)
    over = true
    await clients
    expect(answers.length).toBeGreaterThan(0)
    expect(answers.every((answer) => [`${process.pid}`, `${peer.pid}`].includes(answer))).toBe(true)
    expect(await peer.end()).toBe(0)
  })

  it('of http comes from another process, and serves on when that one is gone', async () => {
    const peer = startNode('offer', 'http', '0', 'hello')
    const before = openFds()
    const { server, data, description } = await receiveListener(peer.connection, http.createServer((_request, response) => { response.end('served here') }))
    const { address } = await peer.said() as { address: net.AddressInfo }
    expect(server.address()).toEqual(address)
    expect(data.toString()).toBe('hello')
    expect(description?.name).toBe(`tcp 127.0.0.1:${address.port}`)
    expect(await peer.end()).toBe(0)
    expect(await get({ port: address.port, host: '127.0.0.1' })).toBe('served here')
    await close(server)
    expect(openFds()).toBeLessThanOrEqual(before)
  })

  it('on a Unix path keeps its address, and the path', async () => {
    const place = path.join(directory(), 'app.sock')
    const peer = startNode('offer', 'http', place, '')
    const { server, description } = await receiveListener(peer.connection, http.createServer((_request, response) => { response.end('served here') }))
    await peer.said()
    await peer.kill()
    expect(description?.name).toBe(`unix ${place}`)
    expect(server.address()).toBe(place)
    expect(await get({ socketPath: place })).toBe('served here')
    await close(server)
    expect(existsSync(place)).toBe(true)
  })

  it('keeps the larger backlog, the one that the kernel holds or the one that is told', async () => {
    const [a, b] = pair()
    for (const [asked, kept] of [[900, 900], [5, 511]] as const) {
      const server = await listening(net.createServer(), { host: '127.0.0.1', port: 0, backlog: asked })
      await sendListener(a, server)
      const adopted = await receiveListener(b)
      if (process.platform === 'linux') expect(describeFd(fdOf(adopted.server)).backlog).toBe(kept)
      await close(adopted.server)
      await close(server)
    }
  })

  it('comes with data of any length, also when it does not fit into the buffer of the socket', async () => {
    const [a, b] = pair()
    const server = await listening(net.createServer())
    const data = Buffer.alloc(1_000_000, '0123456789\n')
    const sending = sendListener(a, server, data)
    const received = await receiveListener(b)
    await sending
    expect(received.data.equals(data)).toBe(true)
    await close(received.server)
    await close(server)
  })

  it('leaves what was sent behind it on the connection', async () => {
    const [a, b] = pair()
    const server = await listening(net.createServer())
    await sendListener(a, server, 'data')
    await sendFds(a, [0], 'the next')
    const received = await receiveListener(b)
    const next = await receiveFds(b)
    closeFds(next.fds)
    expect([received.data.toString(), next.data.toString()]).toEqual(['data', 'the next'])
    await close(received.server)
    await close(server)
  })

  it('may be closed here while its message waits', async () => {
    const [a, b] = pair()
    const first = sendFds(a, [a], Buffer.alloc(3_000_000))
    const server = await listening(net.createServer())
    const port = portOf(server)
    const sending = sendListener(a, server)
    await close(server)
    for (let rest = 3_000_000; rest > 0;) {
      const { data, fds } = await receiveFds(b, { maxBytes: rest })
      closeFds(fds)
      rest -= data.length
    }
    await first
    const received = await receiveListener(b)
    await sending
    expect(portOf(received.server)).toBe(port)
    await close(received.server)
  })
})

describe('from another program', () => {
  it('a listener comes with whatever data was sent', async () => {
    const [a, b] = pair()
    const server = await listening(net.createServer())
    for (const text of ['any words', '{"handover":"something else"}\nrest', '{"handover":"listener"}\n', 'a\nb']) {
      await sendFds(a, [fdOf(server)], text)
      const received = await receiveListener(b)
      expect([received.data.toString(), received.description]).toEqual([text, undefined])
      await close(received.server)
    }
    await close(server)
  })

  it('what is not a listening socket is closed and refused', async () => {
    const [a, b] = pair()
    const wrong = [files('x')[0] ?? -1, a]
    const before = openFds()
    for (const fd of wrong) {
      await sendFds(a, [fd], 'x')
      await expect(receiveListener(b)).rejects.toEqual(toThrowCode('HANDOVER_NOT_A_SOCKET'))
    }
    expect(openFds()).toBe(before)
  })

  it('none or two descriptors are closed and refused', async () => {
    const [a, b] = pair()
    const before = openFds()
    await sendFds(a, [a, b], 'x')
    await expect(receiveListener(b)).rejects.toThrow(/expected one descriptor of a listener, found 2/)
    expect(openFds()).toBe(before)
  })

  it('a message that ends in its middle leaves nothing open', async () => {
    const [a, b] = pair()
    const server = await listening(net.createServer())
    const before = openFds()
    await sendFds(a, [fdOf(server)], '{"handover":"listener","name":"x","backlog":0,"bytes":10}\nabc')
    await expect(receiveListener(b, undefined, { timeoutMs: 20 })).rejects.toEqual(toThrowCode('HANDOVER_FD_TIMEOUT'))
    await sendFds(a, [fdOf(server)], '{"handover":"listener","name":"x","backlog":0,"bytes":10}\nabc')
    closeSync(a)
    await expect(receiveListener(b)).rejects.toEqual(toThrowCode('HANDOVER_FD_CLOSED'))
    expect(openFds()).toBe(before - 1)
    await close(server)
  })
})

describe('wrong servers', () => {
  it('one that does not listen cannot be sent', async () => {
    const [a] = pair()
    await expect(sendListener(a, net.createServer())).rejects.toThrow(/does not listen/)
  })

  it('one that listens already cannot take a listener, and the listener can still be received', async () => {
    const [a, b] = pair()
    const server = await listening(net.createServer())
    await sendListener(a, server)
    await expect(receiveListener(b, server)).rejects.toThrow(/listens already/)
    const received = await receiveListener(b)
    await close(received.server)
    await close(server)
  })

  it('one that began to listen during the wait leaves the descriptor closed', async () => {
    const [a, b] = pair()
    const server = await listening(net.createServer())
    const before = openFds()
    const other = net.createServer()
    const receiving = expect(receiveListener(b, other)).rejects.toMatchObject({ code: 'ERR_SERVER_ALREADY_LISTEN' })
    await listening(other)
    await sendListener(a, server)
    await receiving
    await close(other)
    expect(openFds()).toBe(before)
    await close(server)
  })

  it('an error of the connection reaches the sender of a listener', async () => {
    const [a, b] = socketPair()
    const server = await listening(net.createServer())
    const before = openFds()
    closeFds([b])
    await expect(sendListener(a, server)).rejects.toEqual(toThrowCode('HANDOVER_FD_CLOSED'))
    closeFds([a])
    expect(openFds()).toBe(before - 2)
    onTestFinished(() => close(server))
  })
})
