/** Servers of HTTPS as programs make them: their connections move, and the program sees there what it saw before. */

import https from 'node:https'
import { expect, onTestFinished, test } from 'vitest'
import { Program, programPath, type ProgramEvent } from '../../helpers/program.js'

const kinds = ['sni', 'added', 'rotated', 'fastify', 'express', 'allowHTTP1']

test.for(kinds)('%s: a connection moves over two reloads', async (kind) => {
  const program = Program.start(programPath('secure.mjs'), { env: { KIND: kind } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening') as ProgramEvent & { address: { port: number } }
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false, servername: 'b.example', ALPNProtocols: ['http/1.1'] })
  onTestFinished(() => { agent.destroy() })
  const sockets = new Set<object>()
  const ask = async (): Promise<Record<string, unknown>> => await new Promise((resolve, reject) => {
    const request = https.get({ port: address.port, host: '127.0.0.1', path: '/', agent }, (response) => {
      response.toArray().then((chunks) => { resolve(JSON.parse(chunks.join('')) as Record<string, unknown>) }, reject)
    })
    request.on('socket', (socket) => { sockets.add(socket) }).on('error', reject)
  })
  const before = await ask()
  expect(before).toMatchObject({ generation: 1, encrypted: true, servername: 'b.example', ...(kind === 'fastify' && { protocol: 'https' }) })
  if (kind === 'express') expect(before).toMatchObject({ secure: true, protocol: 'https' })
  for (const generation of [2, 3]) {
    await program.hangUp()
    await program.event('report', ({ report, generation: of }) => (report as { result: string }).result === 'drained' && of === generation - 1)
    expect(await ask()).toEqual({ ...before, generation })
  }
  expect(sockets.size).toBe(1)
})
