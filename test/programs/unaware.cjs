// A program that knows nothing of Handover (but where CASE says so) and listens in a way that is hard on whoever adopts everything.
//   PORT      where the server of all cases listens, on 127.0.0.1; it answers with the pid
//   CASE      what else happens
const dgram = require('node:dgram')
const http = require('node:http')
const net = require('node:net')
const { writeSync } = require('node:fs')

const { env } = process
const script = process.argv[1]
const port = Number(env.PORT)
const answer = (req, res) => { res.end(String(process.pid)) }
const print = (event, detail = {}) => { writeSync(1, `${JSON.stringify({ event, pid: process.pid, generation: 0, ...detail })}\n`) }
const main = (done) => http.createServer(answer).listen(port, '127.0.0.1', done)
const adopts = () => globalThis[Symbol.for('@handover/core')] !== undefined
// Not an address of this machine (RFC 5737): whatever listens there fails.
const elsewhere = '192.0.2.1'

// What children of this program do: listen, and say whether anybody took notice.
function inner(kind) {
  const server = net.createServer().listen(0, '127.0.0.1', () => {
    print('inner', { kind, adopts: adopts() })
    server.close()
  })
}

const cases = {
  plain: () => { main() },
  https: () => { require('node:https').createServer({ keepAliveTimeout: 60_000, ...require('./certificate.mjs').certificate() }, answer).listen(port, '127.0.0.1') },
  // As Fastify's second server for localhost: the error is kept.
  second: () => main(() => { http.createServer(answer).on('error', () => { print('swallowed') }).listen(port, elsewhere) }),
  // Another port: nobody serves there, whoever keeps the error.
  missing: () => {
    http.createServer(answer).on('error', () => { print('swallowed') }).listen(port + 1, env.FAIL_FROM === undefined || require('node:fs').existsSync(env.FAIL_FROM) ? elsewhere : '127.0.0.1', () => main())
  },
  // What get-port and detect-port do.
  probe: () => {
    const looks = net.createServer().on('error', () => { process.exit(7) }).listen(port, '127.0.0.1', () => { looks.close(() => main()) })
  },
  children: () => main(() => {
    require('node:child_process').fork(script, { env: { ...env, INNER: 'forked' } })
    require('node:child_process').spawn(process.execPath, [...process.execArgv, script], { env: { ...process.env, INNER: 'spawned' }, stdio: 'inherit' })
    new (require('node:worker_threads').Worker)(script, { env: { ...process.env, INNER: 'thread' } })
  }),
  cluster: () => {
    const cluster = require('node:cluster')
    if (cluster.isPrimary) cluster.fork()
    else main(() => { print('inner', { kind: 'cluster', adopts: adopts() }) })
  },
  // Comes and goes while the process serves.
  passing: () => main(() => {
    let open
    process.on('SIGUSR2', () => {
      if (open) open.close(() => { print('closed') })
      else open = net.createServer().listen(0, '127.0.0.1', () => { print('opened') })
    })
    print('booted')
  }),
  // As a program that awaits something first. Each process opens it when it is told to.
  late: () => main(() => {
    const open = (place) => http.createServer(answer).on('error', ({ code }) => { print('error', { code }) }).listen(place, () => { print('opened', { place }) })
    process.on('SIGUSR2', () => {
      require('node:fs').rmSync(env.LATE_PATH, { force: true })
      open({ path: env.LATE_PATH })
      open({ port: Number(env.LATE_PORT), host: '127.0.0.1' })
    })
  }),
  udp: () => main(() => {
    const server = dgram.createSocket('udp4', function (message, peer) { this.send(String(process.pid), peer.port, peer.address) })
    server.bind(port, '127.0.0.1', () => { print('bound') })
    // Clients: one binds as it sends, one itself, one shares its port as those of a multicast group do.
    dgram.createSocket('udp4').send('x', port, '127.0.0.1')
    dgram.createSocket('udp4').bind(0, '127.0.0.1')
    dgram.createSocket({ type: 'udp4', reuseAddr: true }).bind(port + 1, '127.0.0.1')
  }),
  // The app's own adapter, of its own copy of the package where COPY says so.
  adapter: () => {
    const { handover } = require(env.COPY ?? '@handover/core')
    const server = handover(http.createServer({ keepAliveTimeout: 60_000 }, answer), { canMove: () => false, onClose: () => { print('hook') } })
    server.listen(port, '127.0.0.1', () => { print('own', { generation: handover.generation, copied: require.resolve(env.COPY ?? '@handover/core') }) })
  }
}

if (env.INNER) inner(env.INNER)
else cases[env.CASE]()
