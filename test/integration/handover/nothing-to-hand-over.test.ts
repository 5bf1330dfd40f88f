/** A program that does not listen, or does not any more: Handover does nothing to it. */

import { existsSync, readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { Folder } from '../../helpers/plan.js'
import { runModule } from '../../helpers/script.js'

describe('a program that does not listen', () => {
  const around = `const signals = () => ['SIGHUP', 'SIGTERM', 'SIGINT'].map((signal) => process.listenerCount(signal)).join()
    const { readdirSync } = await import('node:fs')
    const descriptors = () => readdirSync('/proc/self/fd').length
    const before = descriptors()`

  test('but registers the Fastify plugin and injects gets no socket, no signal handler, no file, and ends by itself', () => {
    using folder = new Folder()
    const run = runModule(`${around}
      import Fastify from 'fastify'
      import handover from '@handover/fastify'
      const app = Fastify()
      await app.register(handover, { name: 'nothing' })
      app.get('/', async () => 'ok')
      const { body } = await app.inject('/')
      console.log(body, signals(), descriptors() - before)`, { HANDOVER_DIR: folder.at('control') })
    expect(run).toEqual({ stdout: 'ok 0,0,0 0\n', stderr: '', status: 0 })
    expect(existsSync(folder.at('control'))).toBe(false)
  })

  test.each([['Express', `import express from 'express'
      import { handover } from '@handover/express'
      handover(express())`], ['core', `import http from 'node:http'
      import dgram from 'node:dgram'
      import { handover } from '@handover/core'
      handover(http.createServer())
      handover(dgram.createSocket('udp4')).close()`]])('but uses %s ends by itself with no signal handler', (_name, script) => {
    expect(runModule(`${around}\n${script}\nconsole.log(signals())`)).toEqual({ stdout: '0,0,0\n', stderr: '', status: 0 })
  })

  test('any more, after listen and close, keeps no signal handler and no file, and ends by itself', () => {
    using folder = new Folder()
    const run = runModule(`${around}
      import Fastify from 'fastify'
      import handover from '@handover/fastify'
      const app = Fastify()
      await app.register(handover, { name: 'nothing' })
      await app.listen({ port: 0 })
      console.log(signals())
      await app.close()
      await new Promise((resolve) => setImmediate(resolve))
      console.log(signals())`, { HANDOVER_DIR: folder.at('control') })
    expect(run).toEqual({ stdout: '1,1,1\n0,0,0\n', stderr: '', status: 0 })
    expect(readdirSync(folder.at('control'))).toEqual([])
  })
})
