// A successor that speaks the protocol raw, on the descriptors that it inherited, as far as `until` says; then it goes wrong as `then` says.
//   until   start, hello, offer, ready, commit, serving
//   then    exit:STATUS, kill, wait (with the channel open), hang (the same with the event loop blocked), close (lives on without the
//           channel), say:TEXT, overlong, failed:REASON
//   protocol  the version that it says
import { closeSync } from 'node:fs'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { receiveFds } from '@handover/core/fd'

const steps = ['start', 'hello', 'offer', 'ready', 'commit', 'serving']

export async function run({ until, then, protocol = 1 }) {
  const [messages, descriptors] = process.env.HANDOVER_SUCCESSOR.split(',').map(Number)
  const socket = new net.Socket({ fd: messages }).on('error', () => undefined)
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]()
  const say = (message) => new Promise((resolve) => { socket.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`, resolve) })
  const hear = async (type) => {
    const { value, done } = await lines.next()
    const message = done ? { type: 'the end' } : JSON.parse(value)
    if (message.type === type) return message
    process.stderr.write(`the fake successor heard ${value}\n`)
    process.exit(9)
  }
  const act = {
    start: () => undefined,
    hello: () => say({ type: 'hello', protocol, pid: process.pid }),
    async offer() {
      const { listeners } = await hear('offer')
      this.names = listeners.map(({ name }) => name)
      const { fds } = await receiveFds(descriptors)
      if (fds.length !== listeners.length) process.exit(8)
    },
    ready() { return say({ type: 'ready', kept: this.names, added: [], dropped: [] }) },
    commit: () => hear('commit'),
    serving: () => say({ type: 'serving' })
  }
  for (const step of steps.slice(0, steps.indexOf(until) + 1)) await act[step]()

  const [how, argument] = then.split(/:(.*)/s)
  switch (how) {
    case 'exit': process.exit(Number(argument)); break
    case 'kill': process.kill(process.pid, 'SIGKILL'); break
    case 'hang': for (;;) { /* blocks the event loop */ }
    case 'wait': break
    case 'close': socket.destroy(); closeSync(descriptors); setInterval(() => undefined, 1000); break
    case 'say': await say(argument); break
    case 'overlong': socket.write('x'.repeat(1_048_577 + 65_536)); break
    case 'failed': await say({ type: 'failed', reason: argument }); process.exit(1)
  }
}
