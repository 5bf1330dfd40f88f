/** sendFds, receiveFds and their companions: what arrives, what is refused, and that nothing is left open. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, readdirSync, readlinkSync, writeSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { closeFds, describeFd, peerCredentials, receiveFds, sendFds, socketPair } from '@handover/core/fd'
import { describe, expect, it, onTestFinished } from 'vitest'
import { directory, files, openFds, pair, peerScript, startNode, startPeer, textOf, toThrowCode } from '../../helpers/fd-peer/support.js'

const linux = process.platform === 'linux'

/** Leaves no room in the socket's buffer. */
async function fill(fd: number, fds: readonly number[]): Promise<void> {
  for (;;) {
    try {
      await sendFds(fd, fds, 'x', { timeoutMs: 0 })
    } catch (error) {
      expect(error).toEqual(toThrowCode('HANDOVER_FD_TIMEOUT'))
      return
    }
  }
}

describe('a message', () => {
  it.each([1, 16, 252])('carries %i descriptors and its data to another process and back', async (count) => {
    const [file] = files('the text') as [number]
    const peer = startNode('echo')
    await sendFds(peer.connection, new Array<number>(count).fill(file), 'some data')
    const { data, fds } = await receiveFds(peer.connection)
    expect(data.toString()).toBe('some data')
    expect(fds).toHaveLength(count)
    expect(new Set(fds).size).toBe(count)
    expect(fds.map(textOf)).toEqual(new Array(count).fill('the text'))
  })

  it('carries one zero byte when no data is given', async () => {
    const [a, b] = pair()
    await sendFds(a, files('x'))
    const { data, fds } = await receiveFds(b)
    closeFds(fds)
    expect([...data]).toEqual([0])
  })

  it('keeps the order of its descriptors', async () => {
    const [a, b] = pair()
    await sendFds(a, files('one', 'two', 'three'), new Uint8Array([1, 2, 3]))
    const { data, fds } = await receiveFds(b)
    expect([...data]).toEqual([1, 2, 3])
    expect(fds.map(textOf)).toEqual(['one', 'two', 'three'])
  })

  it('of more than the buffer holds continues without sending the descriptors again', async () => {
    const [a, b] = pair()
    const sent = Buffer.alloc(3_000_000, 'abcdefg')
    const sending = sendFds(a, files('x', 'y'), sent)
    const parts: Buffer[] = []
    const fds: number[] = []
    for (let bytes = 0; bytes < sent.length;) {
      const received = await receiveFds(b)
      parts.push(received.data)
      fds.push(...received.fds)
      bytes += received.data.length
    }
    await sending
    expect(fds.map(textOf)).toEqual(['x', 'y'])
    expect(Buffer.concat(parts).equals(sent)).toBe(true)
  })

  it('is read in pieces of maxBytes, with the descriptors in the first', async () => {
    const [a, b] = pair()
    await sendFds(a, files('x'), 'abcdef')
    const first = await receiveFds(b, { maxBytes: 4 })
    const second = await receiveFds(b, { maxBytes: 4 })
    closeFds(first.fds)
    expect([first.data.toString(), first.fds.length]).toEqual(['abcd', 1])
    expect([second.data.toString(), second.fds.length]).toEqual(['ef', 0])
  })

  it.runIf(linux)('comes with the plain bytes in front of it, and never with those behind it', async () => {
    const [a, b] = pair()
    writeSync(a, 'before ')
    await sendFds(a, files('x'), 'with')
    writeSync(a, ' behind')
    const first = await receiveFds(b)
    const second = await receiveFds(b)
    closeFds(first.fds)
    expect([first.data.toString(), first.fds.length]).toEqual(['before with', 1])
    expect([second.data.toString(), second.fds.length]).toEqual([' behind', 0])
  })

  it('may be larger than 64 KiB in one receive', async () => {
    const [a, b] = pair()
    await sendFds(a, files('x'), Buffer.alloc(100_000))
    const { data, fds } = await receiveFds(b, { maxBytes: 200_000 })
    closeFds(fds)
    expect(data.length).toBeGreaterThan(0)
    expect(data.length).toBeLessThanOrEqual(100_000)
  })

  it('waits its turn behind one that waits, so that the bytes of two do not mix', async () => {
    const [a, b] = pair()
    const before = openFds()
    const letters = ['a', 'b', 'c', 'd']
    const sending = Promise.all(letters.map((letter) => sendFds(a, [a], letter.repeat(500_000))))
    let all = ''
    while (all.length < 2_000_000) {
      const { data, fds } = await receiveFds(b)
      closeFds(fds)
      all += data.toString('latin1')
    }
    await sending
    expect(all === letters.map((letter) => letter.repeat(500_000)).join('')).toBe(true)
    expect(openFds()).toBe(before)
  })

  it('goes to the waiting receivers one after the other', async () => {
    const [a, b] = pair()
    const receiving = Promise.all([receiveFds(b), receiveFds(b), receiveFds(b)])
    for (const word of ['one', 'two', 'three']) await sendFds(a, [a], word)
    const received = await receiving
    received.forEach(({ fds }) => { closeFds(fds) })
    expect(received.map(({ data }) => data.toString())).toEqual(['one', 'two', 'three'])
  })
})

describe('a received descriptor', () => {
  it.runIf(linux)('is not inherited by a spawned child, and neither is any end of a pair', async () => {
    const [a, b] = pair()
    const [file] = files('x') as [number]
    await sendFds(a, [file], 'x')
    const { fds } = await receiveFds(b)
    const child = spawn('cat', { stdio: ['pipe', 'pipe', 'inherit'] })
    onTestFinished(async () => {
      child.stdin.end()
      await once(child, 'exit')
    })
    // Its echo says that exec(2) is over: spawn returns while the kernel is still closing descriptors.
    child.stdin.write('x')
    await once(child.stdout, 'data')
    const linkOf = (pid: number | string, fd: number | string): string => readlinkSync(`/proc/${pid}/fd/${fd}`)
    const inherited = readdirSync(`/proc/${child.pid}/fd`).map((fd) => linkOf(child.pid ?? 0, fd))
    for (const fd of [a, b, ...fds]) expect(inherited).not.toContain(linkOf('self', fd))
    closeFds(fds)
  })

  it('stays usable when the sender has closed its own and is gone', async () => {
    const [a, b] = pair()
    const [inner, outer] = socketPair()
    await sendFds(a, [inner])
    closeFds([inner, a])
    const { fds } = await receiveFds(b)
    writeSync(outer, 'alive')
    closeFds([outer])
    const { data } = await receiveFds(fds[0] ?? -1)
    closeFds(fds)
    expect(data.toString()).toBe('alive')
  })
})

describe('sendFds refuses', () => {
  it('253 descriptors, and sends nothing', async () => {
    const [a, b] = pair()
    await expect(sendFds(a, new Array<number>(253).fill(a))).rejects.toEqual(toThrowCode('HANDOVER_FD_LIMIT'))
    await expect(receiveFds(b, { timeoutMs: 0 })).rejects.toEqual(toThrowCode('HANDOVER_FD_TIMEOUT'))
  })

  it.each([
    ['no descriptors', []],
    ['a fraction', [1.5]],
    ['a negative number', [-1]],
    ['what is not a number', ['1']],
    ['what is not a list', 7]
  ])('%s', async (_what, fds) => {
    const [a] = pair()
    await expect(sendFds(a, fds as number[])).rejects.toEqual(toThrowCode('HANDOVER_FD_ARGUMENT'))
  })

  it('empty data, because a descriptor cannot travel alone', async () => {
    const [a] = pair()
    await expect(sendFds(a, [a], '')).rejects.toThrow(/at least one byte/)
  })

  it('a closed descriptor by its number, and sends none of the others', async () => {
    const [a, b] = pair()
    const [closed, other] = socketPair()
    closeFds([closed, other])
    await expect(sendFds(a, [a, closed])).rejects.toMatchObject({
      code: 'HANDOVER_FD_ARGUMENT',
      message: expect.stringContaining(`descriptor ${closed}`) as string,
      cause: { code: 'EBADF', syscall: 'sendmsg' }
    })
    await expect(receiveFds(b, { timeoutMs: 0 })).rejects.toEqual(toThrowCode('HANDOVER_FD_TIMEOUT'))
  })

  it.runIf(linux && process.getuid?.() === 0)('more descriptors on their way than RLIMIT_NOFILE of a user without privileges (ETOOMANYREFS)', async () => {
    const peer = startPeer('sh', '-c', 'ulimit -n 60; exec "$0" "$@"', process.execPath, peerScript, 'flood', '65534')
    const said = await peer.said()
    expect(said).toMatchObject({ code: 'HANDOVER_FD_LIMIT', errno: -109 })
    expect((said as Error).message).toMatch(/ETOOMANYREFS.*Let the peer receive/)
  })
})

describe('a connection', () => {
  it.each(['sendFds', 'receiveFds'])('of a closed peer is HANDOVER_FD_CLOSED for %s', async (name) => {
    const [a, b] = pair()
    closeSync(b)
    const before = openFds()
    await expect(name === 'sendFds' ? sendFds(a, [a]) : receiveFds(a)).rejects.toEqual(toThrowCode('HANDOVER_FD_CLOSED'))
    expect(openFds()).toBe(before)
  })

  it('whose peer closes with data unread is HANDOVER_FD_CLOSED, with the reset as cause', async () => {
    const [a, b] = pair()
    await sendFds(a, [a])
    closeSync(b)
    await expect(receiveFds(a)).rejects.toMatchObject({ code: 'HANDOVER_FD_CLOSED', cause: { code: 'ECONNRESET' } })
  })

  it('whose peer closes during a wait is HANDOVER_FD_CLOSED, for both directions', async () => {
    const [a, b] = pair()
    const [c, d] = pair()
    await fill(c, [c])
    const before = openFds()
    const receiving = expect(receiveFds(a)).rejects.toEqual(toThrowCode('HANDOVER_FD_CLOSED'))
    const sending = expect(sendFds(c, [c])).rejects.toEqual(toThrowCode('HANDOVER_FD_CLOSED'))
    closeFds([b, d])
    await receiving
    await sending
    expect(openFds()).toBe(before - 2)
  })

  it('must be a Unix stream socket: TCP would lose the descriptors silently', async () => {
    const server = net.createServer((socket) => { socket.resume() }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
    await once(socket, 'connect')
    await expect(sendFds(socket, [0])).rejects.toThrow(/inet stream socket/)
    socket.destroy()
    server.close()
  })

  it('that is a file, a closed descriptor or no number at all is refused with the system error', async () => {
    const [file] = files('x') as [number]
    const [closed, other] = socketPair()
    closeFds([closed, other])
    await expect(sendFds(file, [file])).rejects.toMatchObject({ code: 'HANDOVER_FD_ARGUMENT', cause: { code: 'ENOTSOCK' } })
    await expect(receiveFds(closed)).rejects.toMatchObject({ code: 'HANDOVER_FD_ARGUMENT', cause: { code: 'EBADF' } })
    for (const wrong of [-1, 1.5, NaN, 'x', null, {}]) {
      await expect(receiveFds(wrong as number)).rejects.toEqual(toThrowCode('HANDOVER_FD_ARGUMENT'))
    }
  })

  it('may be closed during a wait: the call goes on, and nothing is sent to what takes its number', async () => {
    const [a, b] = pair()
    const before = openFds()
    const receiving = receiveFds(a)
    closeSync(a)
    const [c, d] = pair()
    await sendFds(b, [b], 'still for a')
    const { data, fds } = await receiving
    closeFds([...fds, c, d])
    expect(data.toString()).toBe('still for a')
    expect(openFds()).toBe(before - 1)
  })
})

describe('a net.Socket as connection', () => {
  async function accepted(pauseOnConnect: boolean): Promise<{ client: net.Socket; server: net.Socket }> {
    const place = path.join(directory(), 'socket')
    const listener = net.createServer({ pauseOnConnect }).listen(place)
    await once(listener, 'listening')
    const client = net.connect(place)
    client.pause()
    const [[server]] = await Promise.all([once(listener, 'connection') as Promise<[net.Socket]>, once(client, 'connect')])
    listener.close()
    onTestFinished(() => {
      client.destroy()
      server.destroy()
    })
    return { client, server }
  }

  it('carries descriptors both ways when it was accepted with pauseOnConnect or paused before it connected', async () => {
    const { client, server } = await accepted(true)
    await sendFds(client, files('x'), 'there')
    const there = await receiveFds(server)
    await sendFds(server, there.fds, 'back')
    const back = await receiveFds(client)
    closeFds([...there.fds, ...back.fds])
    expect([there.data.toString(), back.data.toString()]).toEqual(['there', 'back'])
  })

  it('cannot receive where Node reads from it', async () => {
    const { server } = await accepted(false)
    await expect(receiveFds(server)).rejects.toThrow(/Node is reading.*pauseOnConnect/)
    server.pause()
    await expect(receiveFds(server)).rejects.toThrow(/Node is reading.*pauseOnConnect/)
  })

  it('cannot receive when Node has already read bytes of it', async () => {
    const { client, server } = await accepted(false)
    client.write('hello')
    await once(server, 'data')
    server.pause()
    await expect(receiveFds(server)).rejects.toThrow(/already read 5 bytes.*pauseOnConnect/)
  })

  it('can send where Node reads from it', async () => {
    const { client, server } = await accepted(false)
    await sendFds(server, [1], 'x')
    const { fds } = await receiveFds(client)
    closeFds(fds)
    expect(fds).toHaveLength(1)
  })

  it('cannot be used before it connects or after it is destroyed', async () => {
    const { client } = await accepted(true)
    await expect(sendFds(new net.Socket(), [1])).rejects.toThrow(/no descriptor/)
    await expect(sendFds(net.connect('/nowhere/at/all').on('error', () => undefined), [1])).rejects.toThrow(/not connected yet/)
    client.destroy()
    await expect(sendFds(client, [1])).rejects.toThrow(/no descriptor/)
  })

  it('ends a waiting call when it is destroyed', async () => {
    const { server } = await accepted(true)
    const waiting = [receiveFds(server), receiveFds(server)].map((each) => expect(each).rejects.toThrow(/destroyed the net.Socket/))
    server.destroy()
    await Promise.all(waiting)
  })
})

describe('a wait', () => {
  it('for a message ends with HANDOVER_FD_TIMEOUT, and the message can still be received', async () => {
    const [a, b] = pair()
    const before = openFds()
    await expect(receiveFds(b, { timeoutMs: 20 })).rejects.toMatchObject({ code: 'HANDOVER_FD_TIMEOUT', message: expect.stringMatching(/within 20 ms.*Nothing was received/) as string })
    expect(openFds()).toBe(before)
    await sendFds(a, files('x'), 'late')
    const { data, fds } = await receiveFds(b)
    closeFds(fds)
    expect(data.toString()).toBe('late')
  })

  it('for room says how many bytes were sent when the time is over', async () => {
    const [a, b] = pair()
    const before = openFds()
    await expect(sendFds(a, [a], Buffer.alloc(3_000_000), { timeoutMs: 20 })).rejects.toThrow(/\d+ of 3000000 bytes and the descriptors were sent/)
    await expect(sendFds(a, [a], 'x', { timeoutMs: 20 })).rejects.toThrow(/Nothing was sent/)
    expect(openFds()).toBe(before)
    const { fds } = await receiveFds(b)
    closeFds(fds)
    expect(fds).toHaveLength(1)
  })

  it('rejects with the reason of the signal, before it begins and during it', async () => {
    const [a, b] = pair()
    const before = openFds()
    const reason = new Error('enough')
    await expect(receiveFds(b, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    await expect(sendFds(a, [a], 'x', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const controller = new AbortController()
    const waiting = [receiveFds(b, { signal: controller.signal }), receiveFds(b, { signal: controller.signal })].map(
      (each) => expect(each).rejects.toBe(reason)
    )
    controller.abort(reason)
    await Promise.all(waiting)
    expect(openFds()).toBe(before)
    await expect(receiveFds(b, { timeoutMs: 0 })).rejects.toEqual(toThrowCode('HANDOVER_FD_TIMEOUT'))
  })

  it.each([-1, NaN, Infinity, 2 ** 31])('of %d ms is refused', async (timeoutMs) => {
    const [a] = pair()
    await expect(receiveFds(a, { timeoutMs })).rejects.toEqual(toThrowCode('HANDOVER_FD_ARGUMENT'))
  })
})

describe('where RLIMIT_NOFILE leaves no room', () => {
  it.runIf(linux)('the descriptors that arrived are closed, and the error says how many', async () => {
    const peer = startPeer('sh', '-c', 'ulimit -n 60; exec "$0" "$@"', process.execPath, peerScript, 'receive')
    await sendFds(peer.connection, new Array<number>(200).fill(0), 'x')
    const said = await peer.said()
    expect(said).toMatchObject({ code: 'HANDOVER_FD_TRUNCATED', leaked: 0 })
    expect((said as Error).message).toMatch(/delivered only [1-9]\d* descriptors.*ulimit -n/)
  })

  it('a message that fits arrives', async () => {
    const peer = startPeer('sh', '-c', 'ulimit -n 60; exec "$0" "$@"', process.execPath, peerScript, 'receive')
    await sendFds(peer.connection, [0, 1], 'x')
    expect(await peer.said()).toEqual({ data: 'x', fds: 2, leaked: 0 })
  })
})

describe('the companions', () => {
  it('peerCredentials tells the process that made the connection', async () => {
    const [a] = pair()
    expect(peerCredentials(a)).toEqual({ pid: linux ? process.pid : 0, uid: process.getuid?.(), gid: process.getgid?.() })
  })

  it('peerCredentials refuses a socket without a peer, and TCP', async () => {
    const server = net.createServer().listen(0)
    await once(server, 'listening')
    expect(() => peerCredentials((server as unknown as { _handle: { fd: number } })._handle.fd)).toThrow(/listening inet/)
    server.close()
  })

  it('closeFds closes the others when one is not open, and names it', () => {
    const before = openFds()
    const [a, b] = socketPair()
    const [c, d] = socketPair()
    closeFds([b])
    expect(() => { closeFds([a, b, c, d]) }).toThrow(new RegExp(`cannot close ${b}\\.`))
    expect(openFds()).toBe(before)
  })

  it('describeFd tells a Unix socket, a TCP listener and its backlog', async () => {
    const [a] = pair()
    expect(describeFd(a)).toEqual({ family: 'unix', type: 'stream', listening: false, address: '', port: 0, ipv6Only: false, backlog: 0 })
    const server = net.createServer().listen({ host: '127.0.0.1', port: 0, backlog: 77 })
    await once(server, 'listening')
    const { port } = server.address() as net.AddressInfo
    expect(describeFd((server as unknown as { _handle: { fd: number } })._handle.fd)).toEqual({
      family: 'inet', type: 'stream', listening: true, address: '127.0.0.1', port, ipv6Only: false, backlog: linux ? 77 : 0
    })
    server.close()
  })

  it('describeFd says that a file is not a socket, and that a closed descriptor is closed', () => {
    const [file] = files('x') as [number]
    const [closed, other] = socketPair()
    closeFds([closed, other])
    expect(() => describeFd(file)).toThrow(toThrowCode('HANDOVER_NOT_A_SOCKET') as Error)
    expect(() => describeFd(closed)).toThrow(toThrowCode('HANDOVER_FD_ARGUMENT') as Error)
  })

  it('of a thousand messages leave no descriptor open', async () => {
    const [a, b] = pair()
    const before = openFds()
    for (let round = 0; round < 1000; round++) {
      const receiving = round % 2 === 0 ? receiveFds(b) : undefined
      await sendFds(a, [a, b], 'x')
      closeFds((await (receiving ?? receiveFds(b))).fds)
    }
    expect(openFds()).toBe(before)
  })
})
