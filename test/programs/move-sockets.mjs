// A net server whose connections tell it, in their first line, how they are to be moved: JSON with
//   id       the name of the connection in what is printed: `connected`, `tried` (what move() said), `arrived`, and `socket` for what its copy emits
//   kind     of the move (default line); `throws` is one whose function throws
//   now      move it at once, not when the drain begins
//   inside   move it in the drain, by its listener for 'data', when it says 'now'
//   every    its state has every type that can be cloned
//   pause    pause it, so that what comes stays unread;  encoding  as for setEncoding();  write  how many bytes to send to the client before it moves
// What comes afterwards is answered with `${generation} got ${what}`.
//   TLS=1  a TLS server;  FOREIGN=1  a server that Handover does not know
import net from 'node:net'
import tls from 'node:tls'
import { isDeepStrictEqual } from 'node:util'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { env } = process
printEvents(handover)

const every = () => {
  const shared = { name: 'shared' }
  return {
    text: 'süß\u2028\0"\n', number: -0, nan: NaN, infinite: -Infinity, big: 2n ** 70n, nothing: null, missing: undefined, yes: true,
    date: new Date(86_400_000), pattern: /a+/gi, list: [1, , 3], // eslint-disable-line no-sparse-arrays -- a hole is a hole
    map: new Map([['a', new Map([[{ key: 1 }, 2]])]]), set: new Set([1, 'b', shared]), again: [shared, shared],
    bytes: new Uint8Array([0, 255, 7]), floats: new Float64Array([1.5, -0]), buffer: new Uint16Array([1, 65_535]).buffer, url: new URL('http://localhost/?a=1')
  }
}
const stateOf = ({ id, every: all }) => ({ id, ...(all && { every: every(), bytes: Buffer.from('as bytes') }) })

const waiting = new Set()
async function tryToMove(socket, plan) {
  try {
    print('tried', { id: plan.id, moved: await handover.move(socket, { kind: plan.kind ?? 'line', state: stateOf(plan) }) })
  } catch ({ code, message }) {
    print('tried', { id: plan.id, code, message })
  }
}

function answer(socket, id, inside) {
  for (const event of ['end', 'close', 'error']) socket.on(event, () => { print('socket', { id, name: event }) })
  socket.on('data', (chunk) => {
    if (inside && String(chunk) === 'now') {
      socket.write('moving')
      void tryToMove(socket, { id })
    } else socket.write(`${handover.generation} got ${chunk}`)
  })
}

function onConnection(socket) {
  socket.once('data', (line) => {
    const plan = JSON.parse(String(line))
    if (plan.encoding) socket.setEncoding(plan.encoding)
    answer(socket, plan.id, plan.inside)
    if (plan.pause) socket.pause()
    if (plan.write) socket.write('x'.repeat(plan.write))
    if (plan.now) void tryToMove(socket, plan)
    else if (!plan.inside) waiting.add(() => tryToMove(socket, plan))
    print('connected', { id: plan.id })
  })
}

handover.onMoved('line', (socket, state) => {
  const { every: all, bytes, id } = state
  print('arrived', {
    id,
    ...(all && { equal: isDeepStrictEqual(all, every()), same: all.again[0] === all.again[1] && all.set.has(all.again[0]), hole: !(1 in all.list), bytes: `${bytes.constructor.name} ${Buffer.from(bytes)}` })
  })
  answer(socket, id)
  waiting.add(() => tryToMove(socket, { id }))
  socket.write(`hello from ${handover.generation}\n`)
})
handover.onMoved('throws', (socket, { id }) => {
  print('arrived', { id })
  if (id !== 'silent') socket.write('hello, and no more\n')
  throw new Error('this function throws')
})
handover.events.on('draining', () => { for (const move of waiting) void move() })

const server = env.TLS ? tls.createServer(certificate(), onConnection) : net.createServer(onConnection)
const ours = handover(env.FOREIGN ? net.createServer() : server, { undoWindow: 100, ...JSON.parse(env.OPTIONS ?? '{}') })
const where = env.LISTEN ? { path: env.LISTEN } : { port: 0, host: '127.0.0.1' }
await new Promise((resolve) => ours.listen(where, resolve))
// The first generation's alone: nobody hands this one over.
if (env.FOREIGN && handover.generation === 1) await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
print('listening', { address: (env.FOREIGN && handover.generation === 1 ? server : ours).address() })
