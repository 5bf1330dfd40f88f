// A server of @grpc/grpc-js with the four kinds of calls, as a program that knows nothing of Handover (PORT), or the client that checks them
// (`client ADDRESS`): it keeps calls of all kinds going, on channels that have a connection each, until SIGINT, and says all the time what it saw.
// TLS: over TLS, where both sides send pings all the time and the server insists on a certificate of the client.
import http2 from 'node:http2'
import grpc from '@grpc/grpc-js'
import { certificate } from './certificate.mjs'

const { key, cert } = process.env.TLS ? certificate() : {}
const pings = key ? { 'grpc.keepalive_time_ms': 100, 'grpc.keepalive_timeout_ms': 10_000, 'grpc.keepalive_permit_without_calls': 1 } : {}

const method = (path, requestStream, responseStream) => ({
  path: `/test.Numbers/${path}`, requestStream, responseStream, requestSerialize: (value) => Buffer.from(JSON.stringify(value)), requestDeserialize: (bytes) => JSON.parse(bytes),
  responseSerialize: (value) => Buffer.from(JSON.stringify(value)), responseDeserialize: (bytes) => JSON.parse(bytes)
})
const service = {
  double: method('Double', false, false), count: method('Count', false, true), sum: method('Sum', true, false), echo: method('Echo', true, true)
}
const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms) })

function serve() {
  const server = new grpc.Server(pings)
  server.addService(service, {
    double: async (call, answer) => {
      const { request } = call
      await wait(request.ms ?? 0)
      const { subject } = call.getAuthContext().sslPeerCertificate ?? {}
      if (key && subject?.CN !== 'localhost') return answer({ code: grpc.status.UNAUTHENTICATED, details: `process ${process.pid} knows of no certificate` })
      answer(null, { value: request.value * 2, text: request.text ?? '', pid: process.pid }, new grpc.Metadata())
    },
    count: async (call) => {
      for (let value = 0; value < call.request.to && !call.cancelled; value++) {
        call.write({ value, pid: process.pid })
        if (value % 5 === 0) await wait(2)
      }
      call.end()
    },
    sum: (call, answer) => {
      let value = 0
      call.on('data', (message) => { value += message.value }).on('end', () => { answer(null, { value, pid: process.pid }) })
    },
    echo: (call) => { call.on('data', (message) => { call.write({ ...message, pid: process.pid }) }).on('end', () => { call.end() }) }
  })
  const credentials = key ? grpc.ServerCredentials.createSsl(cert, [{ private_key: key, cert_chain: cert }], true) : grpc.ServerCredentials.createInsecure()
  server.bindAsync(`127.0.0.1:${process.env.PORT}`, credentials, (error) => { if (error) throw error })
}

async function call(url) {
  const Client = grpc.makeGenericClientConstructor(service, 'Numbers')
  // A channel of its own each: channels to the same address share their connections otherwise.
  const options = { 'grpc.use_local_subchannel_pool': 1, 'grpc.enable_retries': 0, 'grpc.ssl_target_name_override': 'localhost', ...pings }
  const credentials = key ? grpc.credentials.createSsl(cert, key, cert) : grpc.credentials.createInsecure()
  const channels = Array.from({ length: 8 }, () => new Client(url, credentials, options))
  const seen = { answers: 0, cancelled: 0, late: 0, wrong: [], pids: new Set(), goaways: 0, connects: 0 }
  const connect = http2.connect
  http2.connect = (...args) => {
    seen.connects++
    return connect(...args).on('goaway', () => { seen.goaways++ })
  }
  const check = (isRight, what) => { isRight ? seen.answers++ : seen.wrong.push(what) }
  const all = (stream) => new Promise((resolve, reject) => {
    const messages = []
    stream.on('data', (message) => { messages.push(message) }).on('end', () => { resolve(messages) }).on('error', reject)
  })
  const kinds = [
    async (client, n) => {
      const text = 'long '.repeat(n % 9 === 0 ? 20_000 : 1)
      const found = await new Promise((resolve, reject) => { client.double({ value: n, text }, (error, value) => { error ? reject(error) : resolve(value) }) })
      seen.pids.add(found.pid)
      check(found.value === 2 * n && found.text === text, `double ${n}`)
    },
    async (client) => { check((await all(client.count({ to: 20 }))).map(({ value }) => value).join() === Array.from({ length: 20 }, (_, i) => i).join(), 'count') },
    async (client) => {
      await new Promise((resolve, reject) => {
        const stream = client.sum((error, { value } = {}) => {
          if (error) return reject(error)
          check(value === 45, 'sum')
          resolve()
        })
        for (let value = 0; value < 10; value++) stream.write({ value })
        stream.end()
      })
    },
    async (client) => {
      const stream = client.echo()
      const found = all(stream)
      for (let value = 0; value < 10; value++) {
        stream.write({ value })
        await wait(1)
      }
      stream.end()
      check((await found).map(({ value }) => value).join() === '0,1,2,3,4,5,6,7,8,9', 'echo')
    },
    async (client) => {
      const { code } = await new Promise((resolve) => { client.double({ value: 1, ms: 500 }, { deadline: Date.now() + 20 }, (error) => { resolve(error ?? {}) }) })
      if (code === grpc.status.DEADLINE_EXCEEDED) seen.late++
      else seen.wrong.push(`a deadline ended with ${code}`)
    },
    async (client) => {
      const stream = client.count({ to: 1_000 })
      const found = all(stream)
      stream.once('data', () => { stream.cancel() })
      const { code } = await found.catch((error) => error)
      if (code === grpc.status.CANCELLED) seen.cancelled++
      else seen.wrong.push(`a cancelled call ended with ${code}`)
    }
  ]
  let stopping = false
  process.on('SIGINT', () => { stopping = true })
  const say = () => { console.log(JSON.stringify({ ...seen, pids: [...seen.pids] })) }
  const timer = setInterval(say, 50)
  await Promise.all(channels.map(async (client, index) => {
    for (let n = index; !stopping; n++) {
      await kinds[n % kinds.length](client, n).catch((error) => { seen.wrong.push(String(error)) })
      await wait(index * 5)
    }
    client.close()
  }))
  clearInterval(timer)
  say()
}

if (process.argv[2] === 'client') await call(process.argv[3])
else serve()
