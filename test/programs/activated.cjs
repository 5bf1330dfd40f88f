// A program that systemd starts with sockets (test/integration/shutdown/activate.py). It reads its environment before it loads anything of ours. BEHAVIOUR_FILE:
//   fd          it listens on the descriptors, where LISTEN_PID says that they are meant for it        address     on their addresses
//   tcp         on the first alone                 elsewhere   on a port of its own
// ADAPTER=1: it uses the adapter. Otherwise it knows nothing of us. UNIX_PATH, TCP_PORT, UDP_PORT: the addresses. /block?FILE: its event loop, while that exists.
const dgram = require('node:dgram')
const { existsSync, readFileSync } = require('node:fs')
const http = require('node:http')
const { argv0, env, execArgv, pid, title } = process

const print = (event, detail) => process.stdout.write(`${JSON.stringify({ event, pid, generation: 0, ...detail })}\n`)
const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, WATCHDOG_PID, TCP_PORT, UDP_PORT, UNIX_PATH } = env
print('env', { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, WATCHDOG_PID, TCP_PORT, UDP_PORT, argv0, execArgv, title })
const word = readFileSync(env.BEHAVIOUR_FILE, 'utf8').trim()
const how = word === 'fd' && LISTEN_PID !== String(pid) ? 'elsewhere' : word

// A program that knows nothing of us must not load it.
const { handover } = env.ADAPTER ? require('@handover/core') : {}
if (handover) {
  for (const event of ['state', 'report']) handover.events.on(event, (detail) => { print(event, event === 'report' ? { report: detail } : detail) })
  handover.events.on('failed', ({ code, message }) => { print('failed', { code, message }) })
}

const options = JSON.parse(env.OPTIONS ?? '{}')
const adopted = (server) => (handover ? handover(server, options) : server)
const server = () => adopted(http.createServer((request, response) => {
  const [path, file] = request.url.split('?')
  while (path === '/block' && existsSync(file));
  response.end(String(pid))
})).on('error', (error) => { throw error })
const udp = () => {
  const socket = adopted(dgram.createSocket('udp4'))
  return socket.on('message', (_, from) => { socket.send(String(pid), from.port, from.address) })
}
const tcp = server()
tcp.on('listening', () => { print('listening', { address: tcp.address() }) })
switch (how) {
  case 'fd':
    tcp.listen({ fd: 3 })
    server().listen({ fd: 4 })
    udp().bind({ fd: 5 })
    break
  case 'address':
    tcp.listen(Number(TCP_PORT), '127.0.0.1')
    server().listen(UNIX_PATH)
    udp().bind(Number(UDP_PORT), '127.0.0.1')
    break
  case 'tcp': tcp.listen({ fd: 3 }); break
  default: tcp.listen(0, '127.0.0.1')
}
