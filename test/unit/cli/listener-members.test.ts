/** What the keeper holds, with real sockets: servers of this process stand for the workers, which have copies as a worker has. */

import dgram from 'node:dgram'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { closeFds, describeFd } from '@handover/core/fd'
import { addon, type OfferedListener } from '@handover/core/internal'
import { describe, expect, it, onTestFinished } from 'vitest'
import { ListenerMembers, mismatch, type Offer } from '../../helpers/internals.js'
import { directory, openFds } from '../../helpers/fd-peer/support.js'

const linux = process.platform === 'linux'
const ipv6 = linux && existsSync('/proc/net/if_inet6') && readFileSync('/proc/net/if_inet6', 'utf8').includes(' lo')

const fdOf = (owner: object): number => {
  if (owner instanceof net.Server) return (owner as unknown as { _handle: { fd: number } })._handle.fd
  const inside = owner as Record<symbol, { handle: { fd: number } }>
  const state = Object.getOwnPropertySymbols(owner).find((symbol) => symbol.description === 'state symbol')
  return state ? inside[state]!.handle.fd : -1
}

/** As a worker describes what it listens on. */
function about(fd: number, path = ''): OfferedListener {
  const { address, ...found } = describeFd(fd)
  const unix = found.family === 'unix'
  const kind = found.type === 'dgram' ? 'udp' : unix ? 'unix' : 'tcp'
  const called = unix ? `unix ${path}` : `${kind} ${found.family === 'inet6' ? `[${address}]` : address}:${found.port}`
  return { name: called, kind, asked: called, address: unix ? path : address, port: found.port, ipv6: found.family === 'inet6', ipv6Only: found.ipv6Only, backlog: found.backlog }
}

/** A worker of a slot: it listens on copies of what it is offered, answers with its slot, and says what it serves. */
class Worker {
  readonly servers: net.Server[] = []
  answered = 0

  readonly slot: number

  constructor(slot: number) {
    this.slot = slot
    onTestFinished(() => { this.crash() })
  }

  async listen(where: net.ListenOptions & { fd?: number }): Promise<net.Server> {
    const server = net.createServer((socket) => {
      this.answered++
      socket.on('error', () => undefined).end(`${this.slot}`)
    })
    server.listen({ backlog: 511, ...where })
    await once(server, 'listening')
    this.servers.push(server)
    return server
  }

  async adopt({ fds }: { readonly fds: readonly number[] }): Promise<this> {
    for (const fd of fds) await this.listen({ fd: addon().duplicate(fd) })
    return this
  }

  serving(): { listeners: OfferedListener[]; fds: number[] } {
    const fds = this.servers.map(fdOf)
    return {
      listeners: fds.map((fd, index) => about(fd, this.servers[index]!.address() as string)), fds: fds.map((fd) => addon().duplicate(fd))
    }
  }

  heldBy(members: ListenerMembers): this {
    const { listeners, fds } = this.serving()
    members.hold(this.slot, listeners, fds)
    return this
  }

  /** Its copies are closed, as the kernel does for a process that was killed. */
  crash(): void {
    for (const server of this.servers.splice(0)) server.close()
  }
}

/** All that comes; the error code where there is an error. */
async function read(socket: net.Socket): Promise<string> {
  let all = ''
  try {
    for await (const text of socket.setEncoding('utf8')) all += text as string
    return all === '' ? 'closed without an answer' : all
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'error'
  }
}

const ask = (where: net.NetConnectOpts): Promise<string> => read(net.connect(where))
const askAll = (count: number, where: net.NetConnectOpts): Promise<string[]> => Promise.all(Array.from({ length: count }, () => ask(where)))

/** Connections in the kernel's queue, whose handshake is over. */
async function connectAll(count: number, where: net.NetConnectOpts): Promise<{ answers: Promise<string[]> }> {
  const sockets = Array.from({ length: count }, () => net.connect(where))
  const answers = Promise.all(sockets.map(read))
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  return { answers }
}

function keeper(options?: { shared?: boolean; warn?(line: string): void }): ListenerMembers {
  const members = new ListenerMembers(options)
  onTestFinished(() => { members.close() })
  return members
}

/** Four workers on one TCP listener; the first bound it. */
async function four(members: ListenerMembers, where: net.ListenOptions = { host: '127.0.0.1', port: 0 }): Promise<{ workers: Worker[]; port: number }> {
  const first = new Worker(0)
  const server = await first.listen(where)
  first.heldBy(members)
  const workers = [first]
  for (const slot of [1, 2, 3]) workers.push((await new Worker(slot).adopt(members.offerFor(slot))).heldBy(members))
  return { workers, port: (server.address() as net.AddressInfo).port }
}

const counts = (answers: readonly string[]): Record<string, number> =>
  Object.fromEntries([...new Set(answers)].sort().map((answer) => [answer, answers.filter((each) => each === answer).length]))
const inodes = (offer: Pick<Offer, 'fds'>): string[] => offer.fds.map((fd) => `${describeFd(fd).port} ${socketOf(fd)}`)
const socketOf = (fd: number): string => readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').match(/ino:\s+(\d+)/)?.[1] ?? ''

/** First thing in a test: when all that it opened is closed, as many descriptors are open as before. */
function countsDescriptors(): void {
  const before = openFds()
  // The last of those that run after the test.
  onTestFinished(async () => { await expect.poll(openFds).toBeLessThanOrEqual(before) })
}

describe.runIf(linux)('members of a TCP listener', () => {
  it.for([
    ['IPv4', { host: '127.0.0.1', port: 0 }, ['127.0.0.1']],
    ['::1', { host: '::1', port: 0 }, ['::1']],
    ['both stacks', { host: '::', port: 0 }, ['127.0.0.1', '::1']],
    ['IPv6 alone', { host: '::', port: 0, ipv6Only: true }, ['::1']]
  ] as const)('spread 200 connections over four workers, none below half or above twice the mean: %s', async ([name, where, hosts], { skip }) => {
    if (!ipv6 && name !== 'IPv4') skip('this machine has no IPv6')
    countsDescriptors()
    const { port } = await four(keeper(), where)
    for (const host of hosts) {
      // By the kernel's hash of random ports: one run in 60,000 is outside of these bounds.
      const spread = counts(await askAll(200, { host, port }))
      expect(Object.keys(spread)).toEqual(['0', '1', '2', '3'])
      for (const count of Object.values(spread)) expect(count).toSatisfy((n: number) => n >= 25 && n <= 100)
    }
  })

  it('listen on what is asked of the first: the same address, port and IPV6_V6ONLY, bound and not listening until somebody accepts', async () => {
    const members = keeper()
    const worker = new Worker(0)
    await worker.listen({ host: '127.0.0.1', port: 0 })
    worker.heldBy(members)
    const offer = members.offerFor(1)
    expect(offer.listeners).toEqual([{ ...worker.serving().listeners[0], bound: true }])
    expect(describeFd(offer.fds[0]!)).toMatchObject({ listening: false })
    expect(members.sharing).toEqual([])
    // A successor takes it for what the offer says, and only because the offer says so.
    const { bound: _, ...unbound } = offer.listeners[0]!
    expect(mismatch(offer.listeners[0]!, describeFd(offer.fds[0]!))).toBeUndefined()
    expect(mismatch(unbound, describeFd(offer.fds[0]!))).toBe('a socket that does not listen')
    expect(members.offerFor(1).fds).toEqual(offer.fds)
    expect(members.orphans([0])).toEqual([])
    // A member that does not listen gets nothing.
    expect(counts(await askAll(50, { host: '127.0.0.1', port: offer.listeners[0]!.port }))).toEqual({ 0: 50 })
    const own = members.offerFor(0)
    expect(own.listeners).toEqual(worker.serving().listeners)
    closeFds(worker.serving().fds)
  })

  it('are there for a worker that opens the listener later than another one, as long as that serves it', async () => {
    countsDescriptors()
    const members = keeper()
    const [first, second] = [new Worker(0), new Worker(1)]
    const where = { host: '127.0.0.1', port: 0 }
    await first.listen(where)
    await second.listen(where)
    first.heldBy(members)
    second.heldBy(members)
    const late = (await first.listen(where)).address() as net.AddressInfo
    first.heldBy(members)
    const [loan, ...others] = members.lateFor(1).filter(({ listener }) => listener.port === late.port)
    expect(others).toEqual([])
    expect(loan).toMatchObject({ listener: { spare: true, bound: true } })
    expect(members.lateFor(1)).toContainEqual(loan)
    expect(members.lateFor(0).map(({ listener: { port } }) => port)).not.toContain(late.port)
    await second.adopt({ fds: [loan!.fd] })
    second.heldBy(members)
    expect(members.lateFor(1)).not.toContainEqual(loan)
    expect(Object.keys(counts(await askAll(100, { host: '127.0.0.1', port: late.port })))).toEqual(['0', '1'])
    members.hold(0, [], [])
    expect(members.lateFor(2).map(({ listener: { port } }) => port)).toContain(late.port)
    members.hold(1, [], [])
    expect(members.lateFor(2)).toEqual([])
  })

  it('of a port that the system chose are not: the other worker chooses its own', async () => {
    countsDescriptors()
    const members = keeper()
    const worker = new Worker(0)
    await worker.listen({ host: '127.0.0.1', port: 0 })
    const { listeners, fds } = worker.serving()
    members.hold(0, listeners.map((listener) => ({ ...listener, ephemeral: true })), fds)
    expect(members.lateFor(1)).toEqual([])
  })

  it('go from generation to generation: the next worker of the slot is offered the same socket, which no copy too much keeps open', async () => {
    countsDescriptors()
    const members = keeper()
    const { workers } = await four(members)
    const first = inodes(members.offerFor(2))
    for (let generation = 0; generation < 3; generation++) {
      const successor = await new Worker(2).adopt(members.offerFor(2))
      const fds = openFds()
      successor.heldBy(members)
      successor.heldBy(members)
      expect(openFds()).toBe(fds)
      workers[2]!.crash()
      workers[2] = successor
      expect(inodes(members.offerFor(2))).toEqual(first)
    }
  })

  it('keep what is in the queue of a worker that was killed, for the next one', async () => {
    countsDescriptors()
    const members = keeper()
    const { workers, port } = await four(members)
    for (const worker of workers) worker.crash()
    const { answers } = await connectAll(100, { host: '127.0.0.1', port })
    for (const { slot } of workers) (await new Worker(slot).adopt(members.offerFor(slot))).heldBy(members)
    const spread = counts(await answers)
    expect(Object.keys(spread)).toEqual(['0', '1', '2', '3'])
  })

  it('are covered by the workers that live while one is down', async () => {
    countsDescriptors()
    const members = keeper()
    const { workers, port } = await four(members)
    workers[1]!.crash()
    const asked = connectAll(100, { host: '127.0.0.1', port })
    const [orphan, ...others] = members.orphans([0, 2, 3])
    expect(others).toEqual([])
    expect(orphan).toMatchObject({ slot: 1, by: [0, 2, 3], listener: { port } })
    await workers[3]!.adopt({ fds: [orphan!.fd] })
    const spread = counts(await (await asked).answers)
    expect(Object.keys(spread)).toEqual(['0', '2', '3'])
    expect(members.orphans([0, 1, 2, 3])).toEqual([])
    expect(members.orphans([])).toEqual([])
  })

  it('lose nothing when there are fewer workers: what is queued, and what still comes to a member without a slot, is answered', async () => {
    countsDescriptors()
    const members = keeper()
    const { workers, port } = await four(members)
    for (const slot of [1, 2, 3]) workers[slot]!.crash()
    const { answers } = await connectAll(100, { host: '127.0.0.1', port })
    expect(members.settle([0])).toEqual([])
    const orphans = members.orphans([0])
    expect(orphans.map(({ slot }) => slot)).toEqual([1, 2, 3])
    await workers[0]!.adopt({ fds: orphans.map(({ fd }) => fd) })
    expect(counts(await answers)).toEqual({ 0: 100 })
    expect(counts(await askAll(100, { host: '127.0.0.1', port }))).toEqual({ 0: 100 })
    // And more again.
    const again = await new Worker(2).adopt(members.offerFor(2))
    again.heldBy(members)
    expect(members.orphans([0, 2]).map(({ slot }) => slot)).toEqual([1, 3])
  })

  it('leave the port to no other program while one listens, and to any when the keeper has closed them', async () => {
    const members = keeper()
    const { workers, port } = await four(members)
    for (const worker of workers) worker.crash()
    const other = net.createServer()
    await expect(once(other.listen({ host: '127.0.0.1', port, exclusive: true }), 'listening')).rejects.toMatchObject({ code: 'EADDRINUSE' })
    members.close()
    await once(other.listen({ host: '127.0.0.1', port, exclusive: true }), 'listening')
    other.close()
  })

  it('come to be under load without a connect that fails', async () => {
    countsDescriptors()
    const members = keeper()
    const first = new Worker(0)
    const port = ((await first.listen({ host: '127.0.0.1', port: 0 })).address() as net.AddressInfo).port
    first.heldBy(members)
    const answers: string[] = []
    let over = false
    const clients = Promise.all(Array.from({ length: 20 }, async () => {
      while (!over) answers.push(await ask({ host: '127.0.0.1', port }))
    }))
    for (let slot = 1; slot <= 20; slot++) {
      const seen = answers.length
      await expect.poll(() => answers.length).toBeGreaterThan(seen + 20)
      ;(await new Worker(slot).adopt(members.offerFor(slot))).heldBy(members)
    }
    await expect.poll(() => new Set(answers).size).toBe(21)
    over = true
    await clients
    expect(answers.filter((answer) => !/^\d+$/.test(answer))).toEqual([])
  })
})

describe('a listener', () => {
  it.runIf(linux)('that the new version of one slot drops is covered by the others, and refuses when none serves it any more', async () => {
    countsDescriptors()
    const members = keeper()
    const { workers, port } = await four(members)
    for (const worker of workers) {
      const successor = await new Worker(worker.slot).listen({ host: '127.0.0.1', port: 0 })
      members.hold(worker.slot, [about(fdOf(successor))], [addon().duplicate(fdOf(successor))])
      worker.crash()
      const dropped = `tcp 127.0.0.1:${port}`
      const rest = workers.slice(worker.slot + 1)
      expect(members.names.includes(dropped)).toBe(rest.length > 0)
      if (rest.length > 0) {
        expect(members.settle([0, 1, 2, 3])).toEqual([])
        for (const { fd, by } of members.orphans([0, 1, 2, 3])) {
          expect(by).toEqual(rest.map(({ slot }) => slot))
          await rest[0]!.adopt({ fds: [fd] })
        }
        expect(counts(await askAll(20, { host: '127.0.0.1', port }))).not.toHaveProperty('ECONNREFUSED')
        // Its worker says what it serves, which is the one that it had and not what it covers.
        rest[0]!.servers.splice(1).forEach((server) => { server.close() })
      } else {
        expect(members.settle([0, 1, 2, 3])).toEqual([dropped])
        expect(await ask({ host: '127.0.0.1', port })).toBe('ECONNREFUSED')
        expect(members.settle([0, 1, 2, 3])).toEqual([])
      }
    }
  })

  it.runIf(linux)('that is dropped is offered to the slot as long as the reload can be undone', async () => {
    const members = keeper()
    const { workers, port } = await four(members)
    const first = inodes(members.offerFor(0))
    members.hold(0, [], [])
    expect(members.extrasFor(0).fds).toEqual([])
    expect(inodes(members.offerFor(0))).toEqual(first)
    workers[0]!.heldBy(members)
    expect(members.orphans([0, 1, 2, 3])).toEqual([])
    expect(members.names).toEqual([`tcp 127.0.0.1:${port}`])
  })

  it.runIf(linux)('that a program has closed is a spare for the next worker of each slot, until the next reload', async () => {
    countsDescriptors()
    const members = keeper()
    const first = new Worker(0)
    const { port } = (await first.listen({ host: '127.0.0.1', port: 0 })).address() as net.AddressInfo
    const other = await first.listen({ host: '127.0.0.1', port: 0 })
    first.heldBy(members)
    first.servers.splice(0, 1)[0]!.close()
    first.heldBy(members)
    const kept = (other.address() as net.AddressInfo).port
    const spares = (slot: number): object =>
      Object.fromEntries(members.offerFor(slot).listeners.map((listener) => [listener.port, listener.spare ?? false]))
    for (const slot of [0, 1, 1]) expect(spares(slot)).toEqual({ [kept]: false, [port]: true })
    expect(members.orphans([0, 1])).toEqual([])
    expect(members.settle([0, 1])).toEqual([`tcp 127.0.0.1:${port}`])
    expect(spares(1)).toEqual({ [kept]: false })
  })

  it.runIf(linux)('that the new version of one slot adds is offered to the others, once to each', async () => {
    const members = keeper()
    const { workers } = await four(members)
    expect(members.extrasFor(1)).toEqual({ listeners: [], fds: [] })
    const added = await workers[0]!.listen({ host: '127.0.0.1', port: 0 })
    workers[0]!.heldBy(members)
    const port = (added.address() as net.AddressInfo).port
    const extras = members.extrasFor(1)
    expect(extras.listeners).toMatchObject([{ port, bound: true }])
    await workers[1]!.adopt(extras)
    workers[1]!.heldBy(members)
    expect(members.extrasFor(1).fds).toEqual([])
    expect(Object.keys(counts(await askAll(200, { host: '127.0.0.1', port })))).toEqual(['0', '1'])
  })

  it('on a Unix path is shared by all slots', async () => {
    countsDescriptors()
    const members = keeper()
    const place = path.join(directory(), 'app.sock')
    const first = new Worker(0)
    await first.listen({ path: place })
    first.heldBy(members)
    const offer = members.offerFor(1)
    expect(offer).toMatchObject({ listeners: [{ name: `unix ${place}` }] })
    expect(members.sharing).toEqual([])
    expect(offer.listeners[0]).not.toHaveProperty('bound')
    const second = await new Worker(1).adopt(offer)
    members.hold(1, offer.listeners, second.servers.map((server) => addon().duplicate(fdOf(server))))
    expect(members.orphans([1])).toEqual([])
    // The second gets what the first leaves in the queue: it is one queue. (Node would remove the path with the first.)
    expect(counts(await askAll(20, { path: place }))).not.toHaveProperty('ECONNREFUSED')
  })

  it('of UDP is shared by all slots', async () => {
    const members = keeper()
    const socket = dgram.createSocket('udp4')
    onTestFinished(() => { socket.close() })
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    members.hold(0, [about(fdOf(socket))], [addon().duplicate(fdOf(socket))])
    const offer = members.offerFor(1)
    expect(offer).toMatchObject({ listeners: [{ kind: 'udp' }] })
    expect(members.sharing).toEqual([])
    expect(socketOf(offer.fds[0]!)).toBe(socketOf(fdOf(socket)))
    expect(members.orphans([])).toEqual([])
  })

  it.runIf(linux && process.getuid?.() === 0)('whose group nobody else may join is shared, and the log and the status say why, once', async () => {
    countsDescriptors()
    const told: string[] = []
    const members = keeper({ warn: (line) => { told.push(line) } })
    const first = new Worker(0)
    // The kernel lets only sockets of one user id into a group.
    process.seteuid!(65534)
    const listening = first.listen({ port: 0 }) // without a host it binds before it returns
    process.seteuid!(0)
    const port = ((await listening).address() as net.AddressInfo).port
    first.heldBy(members)
    const offer = members.offerFor(1)
    members.offerFor(2)
    expect(told).toEqual([expect.stringMatching(/^the workers accept from one queue of tcp \S+, and not from one each \(bind EADDRINUSE: address already in use\): .*\. Let /)])
    expect(members.sharing).toEqual([expect.stringContaining(`${offer.listeners[0]!.name}, and not from one each (bind EADDRINUSE: address already in use)`)])
    expect(offer.listeners[0]).not.toHaveProperty('bound')
    const second = (await new Worker(1).adopt(offer)).heldBy(members)
    expect(members.orphans([1])).toEqual([])
    first.crash()
    expect(counts(await askAll(20, { host: '127.0.0.1', port }))).toEqual({ 1: 20 })
    expect(second.answered).toBe(20)
  })

  it('is shared where that is asked for', async () => {
    countsDescriptors()
    const members = keeper({ shared: true })
    const { workers, port } = await four(members)
    expect(new Set(workers.map(({ slot }) => socketOf(members.offerFor(slot).fds[0]!))).size).toBe(1)
    expect(members.orphans([3])).toEqual([])
    for (const worker of workers.slice(0, 3)) worker.crash()
    expect(counts(await askAll(20, { host: '127.0.0.1', port }))).toEqual({ 3: 20 })
  })

  it('stays two where a worker listens twice on one address', async () => {
    const members = keeper()
    const first = new Worker(0)
    const server = await first.listen({ host: '127.0.0.1', port: 0 })
    await first.listen({ fd: addon().duplicate(fdOf(server)) })
    first.heldBy(members)
    expect(members.offerFor(0).fds).toHaveLength(2)
    expect(members.offerFor(1).fds).toHaveLength(2)
    expect(members.names).toHaveLength(1)
  })
})

describe('the keeper', () => {
  it.runIf(linux)('gives all to the next one, which holds the same sockets in the same slots', async () => {
    countsDescriptors()
    const members = keeper()
    const { workers, port } = await four(members)
    members.offerFor(4)
    workers[3]!.crash()
    const { answers } = await connectAll(50, { host: '127.0.0.1', port })
    const all = members.all()
    const saved = JSON.parse(JSON.stringify(all.members)) as typeof all.members
    const next = ListenerMembers.restore(saved, all.fds.map((fd) => addon().duplicate(fd)))
    onTestFinished(() => { next.close() })
    for (const slot of [0, 1, 2, 3, 4]) {
      expect(next.offerFor(slot).listeners).toEqual(members.offerFor(slot).listeners)
      expect(inodes(next.offerFor(slot))).toEqual(inodes(members.offerFor(slot)))
    }
    expect(next.orphans([0, 1, 2]).map(({ slot }) => slot)).toEqual(members.orphans([0, 1, 2]).map(({ slot }) => slot))
    members.close()
    ;(await new Worker(3).adopt(next.offerFor(3))).heldBy(next)
    expect(await answers).not.toContain('ECONNRESET')
  })

  it('changes nothing for a descriptor that is not open, and closes the others', async () => {
    const members = keeper()
    const worker = new Worker(0)
    await worker.listen({ host: '127.0.0.1', port: 0 })
    worker.heldBy(members)
    const { listeners, fds } = worker.serving()
    const held = members.all()
    const open = openFds()
    expect(() => { members.hold(0, [...listeners, ...listeners], [...fds, 999_999]) }).toThrow('EBADF')
    expect(members.all()).toEqual(held)
    expect(openFds()).toBe(open - 1)
  })
})
