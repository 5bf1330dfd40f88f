// Small servers, each of which cleans up at SIGTERM or SIGINT as programs and their packages do. They know nothing of Handover. KIND says which one; each step of
// the cleanup is a line of standard output.
import { Console } from 'node:console'
import { writeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const say = (step) => { writeSync(1, `${process.pid}: ${step}\n`) }
const answer = (req, res) => { setTimeout(() => { res.end('ok') }, 5) }
const port = Number(process.env.PORT)
const quiet = new Console(process.stderr)
/** The pool of a database, which keeps the process alive until it has ended. */
const openPool = () => {
  const connections = setInterval(() => undefined, 1_000)
  return {
    async end() {
      await sleep(30)
      clearInterval(connections)
      say('the pool has ended')
    }
  }
}
const listening = () => http.createServer(answer).listen(port, '127.0.0.1')
const outcome = (error) => error?.code ?? 'no error'

process.on('exit', (code) => { say(`exit ${code}`) })
process.on('beforeExit', () => { say('beforeExit') })

const kinds = {
  'server.close(callback), then the pool, then exit(0), else exit(1)': () => {
    const [server, pool] = [listening(), openPool()]
    process.on('SIGTERM', (signal, number) => {
      say(`${signal} ${number}`)
      server.close((error) => {
        say(`closed: ${outcome(error)}`)
        if (error) process.exit(1)
        void pool.end().then(() => process.exit(0))
      })
    })
  },

  'all servers that it has made are closed, and each without an error': () => {
    const made = []
    for (const module of [http, net]) {
      const { createServer } = module
      module.createServer = (...args) => {
        made.push(createServer(...args))
        return made.at(-1)
      }
    }
    listening()
    process.on('SIGTERM', () => {
      for (const server of made) server.close((error) => { say(`closed: ${outcome(error)}`) })
    })
  },

  'close() twice, and what the server says of itself': () => {
    const server = listening()
    server.on('close', () => { say('close event') })
    process.on('SIGTERM', async () => {
      say(`listens: ${server.listening}, port: ${server.address().port === port}, connections: ${await promisify(server.getConnections.bind(server))()}`)
      server.closeIdleConnections()
      server.closeAllConnections()
      await promisify(server.close.bind(server))()
      say(`listens: ${server.listening}, address: ${server.address()}`)
      server.close((error) => {
        say(`closed again: ${outcome(error)}`)
        process.exitCode = 3
      })
    })
  },

  'await server[Symbol.asyncDispose]() in a listener that is called once, and nothing that ends the process': () => {
    const [server, pool] = [listening(), openPool()]
    process.once('SIGTERM', async () => {
      say(`listeners left: ${process.listeners('SIGTERM').length}`)
      await server[Symbol.asyncDispose]()
      await pool.end()
    })
  },

  'one listener for SIGTERM and SIGINT, each called once': () => {
    const server = listening()
    const end = (signal) => {
      say(signal)
      server.close(() => {
        say(`left: ${process.listeners('SIGTERM').length} and ${process.listeners('SIGINT').length}`)
        process.exit(0)
      })
    }
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, end)
  },

  'exit() at once, with a status of its own': () => {
    listening()
    for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => { process.exit(7) })
  },

  'several listeners, of which the second throws': () => {
    listening()
    process.on('SIGTERM', () => { say('first') })
    process.on('SIGTERM', () => { throw new Error('thrown in a cleanup') })
    process.on('SIGTERM', () => { say('third') })
  },

  'an async listener that rejects': () => {
    listening()
    process.on('SIGTERM', async () => {
      await sleep(1)
      throw new Error('rejected in a cleanup')
    })
  },

  'the signal again to itself, when only its own listeners are there': () => {
    // As signal-exit does, which many packages have.
    listening()
    const onSignal = () => {
      if (process.listeners('SIGTERM').length > 1) return
      process.removeListener('SIGTERM', onSignal)
      say('sends it again')
      process.kill(process.pid, 'SIGTERM')
    }
    process.on('SIGTERM', onSignal)
  },

  'the signal again to itself, in a listener that is called once, after a while': () => {
    const server = listening()
    process.once('SIGTERM', async (signal) => {
      await sleep(50)
      server.close(() => {
        say('sends it again')
        process.kill(process.pid, signal)
      })
    })
  },

  'the signal again to itself at once, while another listener is there': () => {
    listening()
    let count = 0
    process.once('SIGTERM', () => { process.kill(process.pid, 'SIGTERM') })
    process.on('SIGTERM', () => {
      say(`signal ${++count}`)
      if (count === 2) process.exit(5)
    })
  },

  'a cleanup that takes CLEANUP_MS': () => {
    listening()
    process.on('SIGTERM', async () => {
      say('begins')
      await sleep(Number(process.env.CLEANUP_MS))
      say('ends')
      process.exit(0)
    })
  },

  '@godaddy/terminus': async () => {
    const { createTerminus } = (await import('@godaddy/terminus')).default
    const server = createTerminus(http.createServer(answer), {
      signals: ['SIGTERM', 'SIGINT'],
      healthChecks: { '/health': async () => undefined },
      beforeShutdown: async () => { say('beforeShutdown') },
      onSignal: async () => { say('onSignal') },
      onShutdown: async () => { say('onShutdown') },
      logger: (text, error) => { say(`${text}: ${error}`) }
    })
    server.listen(port, '127.0.0.1')
  },

  'http-terminator': async () => {
    const { createHttpTerminator } = (await import('http-terminator')).default
    const terminator = createHttpTerminator({ server: listening() })
    process.on('SIGTERM', async () => {
      await terminator.terminate()
      say('terminated')
      process.exit(0)
    })
  },

  'http-graceful-shutdown': async () => {
    const { default: shutDownGracefully } = await import('http-graceful-shutdown')
    shutDownGracefully(listening(), {
      preShutdown: async (signal) => { say(`preShutdown ${signal}`) },
      onShutdown: async (signal) => { say(`onShutdown ${signal}`) },
      finally: () => { say('finally') }
    })
  },

  stoppable: async () => {
    const { default: stoppable } = await import('stoppable')
    const server = stoppable(listening(), 1_000)
    process.on('SIGTERM', () => { server.stop((error, gracefully) => { say(`stopped: ${outcome(error)}, gracefully: ${gracefully}`) }) })
  },

  'close-with-grace': async () => {
    const { default: closeWithGrace } = await import('close-with-grace')
    const server = listening()
    closeWithGrace({ delay: 5_000, logger: quiet }, async ({ signal, err }) => {
      say(`${signal} ${err}`)
      await promisify(server.close.bind(server))()
      say('closed')
    })
  },

  'Fastify with close-with-grace, as its templates have it': async () => {
    const [{ default: fastify }, { default: closeWithGrace }] = await Promise.all([import('fastify'), import('close-with-grace')])
    const app = fastify()
    app.get('/', async () => {
      await sleep(5)
      return 'ok'
    })
    app.addHook('preClose', async () => { say('preClose') })
    app.addHook('onClose', async () => { say('onClose') })
    closeWithGrace({ delay: 5_000, logger: quiet }, async ({ err }) => {
      say(`closes: ${err}`)
      await app.close()
      say('closed')
    })
    await app.listen({ port })
  },

  'Hono, as its documents have it': async () => {
    const [{ Hono }, { serve }] = await Promise.all([import('hono'), import('@hono/node-server')])
    const app = new Hono()
    app.get('/', async (c) => {
      await sleep(5)
      return c.text('ok')
    })
    const server = serve({ fetch: app.fetch, port, hostname: '127.0.0.1' })
    process.on('SIGINT', () => {
      server.close()
      process.exit(0)
    })
    process.on('SIGTERM', () => {
      server.close((error) => {
        say(`closed: ${outcome(error)}`)
        process.exit(error ? 1 : 0)
      })
    })
  },

  'Nest with enableShutdownHooks()': async () => {
    await import('reflect-metadata')
    const [{ Controller, Get, Module }, { NestFactory }] = await Promise.all([import('@nestjs/common'), import('@nestjs/core')])
    class Hello {
      async hello() {
        await sleep(5)
        return 'ok'
      }

      onModuleDestroy() { say('onModuleDestroy') }
      beforeApplicationShutdown(signal) { say(`beforeApplicationShutdown ${signal}`) }
      onApplicationShutdown(signal) { say(`onApplicationShutdown ${signal}`) }
    }
    class App {}
    Get()(Hello.prototype, 'hello', Object.getOwnPropertyDescriptor(Hello.prototype, 'hello'))
    Controller()(Hello)
    Module({ controllers: [Hello] })(App)
    const app = await NestFactory.create(App, { logger: ['error'] })
    app.enableShutdownHooks()
    await app.listen(port, '127.0.0.1')
  }
}

await kinds[process.env.KIND]()
