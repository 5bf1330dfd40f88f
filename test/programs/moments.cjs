// Servers that open at different moments, and a process that is ready when it says so.
//   PLAN_FILE   JSON, read at every boot: { tries: [place], first: [place], gate: path, then: [place], warms: port, fails: true }
//   ADAPTER     set: it gives its servers to @handover/core; else it knows nothing of Handover but ready() and share()
// `tries` are opened and closed, one after the other. `first` are opened at once, `then` when there is a file at `gate`; a place is options of listen(), or { udp: port, group }. With `warms` it asks itself there before
// it says ready(), and answers what it found. `ready` and `fails` happen at SIGUSR2. It prints `open` for each server, and `got` for a datagram.
const { existsSync, readFileSync, writeSync } = require('node:fs')
const dgram = require('node:dgram')
const http = require('node:http')
const handover = require('@handover/core')

const plan = JSON.parse(readFileSync(process.env.PLAN_FILE, 'utf8'))
const adopt = process.env.ADAPTER ? handover.handover : (server) => server
const print = (event, detail) => { writeSync(1, `${JSON.stringify({ event, pid: process.pid, generation: handover.handover.generation, ...detail })}\n`) }
for (const name of ['state', 'failed', 'report']) handover.events.on(name, (detail) => { print(name, name === 'report' ? { report: detail } : { ...detail, message: detail.message, code: detail.code }) })

let memory = plan.memory
if (plan.memory !== undefined) handover.share('memory', { save: () => memory, restore: (value) => { memory = value }, checkpoint: 50 })

function open(place) {
  const isDatagram = place.udp !== undefined
  const server = adopt(isDatagram ? dgram.createSocket('udp4') : http.createServer((req, res) => res.end(`${process.pid} ${memory}`)))
  return new Promise((resolve) => {
    server.on('error', (error) => { print('error', { code: error.code }), resolve() })
    server.on('listening', () => { print('open', { address: server.address() }), resolve() })
    if (!isDatagram) server.listen(place)
    else {
      server.on('message', (message) => { print('got', { message: message.toString(), state: handover.handover.state }) })
      // Of a multicast group nothing comes to a socket that is bound to an address.
      server.bind(place.udp, place.group ? undefined : '127.0.0.1', () => { if (place.group) server.addMembership(place.group, '127.0.0.1') })
      handover.events.on('draining', () => { if (place.group) server.dropMembership(place.group, '127.0.0.1') })
    }
  })
}
const ask = (port) => new Promise((resolve, reject) => {
  http.get({ port, host: '127.0.0.1', agent: false }, (response) => { response.setEncoding('utf8').on('data', resolve) }).on('error', reject)
})

process.on('SIGUSR2', () => {
  if (plan.fails) process.exit(1)
  handover.ready()
})
async function start() {
  for (const place of plan.tries ?? []) {
    const server = adopt(http.createServer())
    await new Promise((resolve) => { server.once('error', (error) => { print('error', { code: error.code, place }), resolve() }).listen(place, () => { server.close(resolve) }) })
  }
  await Promise.all((plan.first ?? []).map(open))
  if (plan.then) {
    while (!existsSync(plan.gate)) await new Promise((resolve) => setTimeout(resolve, 20))
    await Promise.all(plan.then.map(open))
  }
  if (plan.warms === undefined) return
  print('warm', { answer: await ask(plan.warms) })
  handover.ready()
}
void start()
