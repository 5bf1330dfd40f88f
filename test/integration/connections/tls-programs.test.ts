/** Servers of HTTPS as programs make them: their connections move, and the program sees there what it saw before. */

import { once } from 'node:events'
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import https from 'node:https'
import { tmpdir } from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
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

/** Whether a client that shows this session resumes it, and the newest session that it got. */
async function handshake(
  port: number, version: tls.SecureVersion, session?: Buffer
): Promise<{ reused: boolean; session: Buffer | undefined }> {
  const only = { minVersion: version, maxVersion: version }
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...only, ...(session && { session }) })
  onTestFinished(() => { socket.destroy() })
  let newest: Buffer | undefined
  socket.on('session', (given: Buffer) => { newest = given })
  await once(socket, 'secureConnect')
  while (!newest && !session) await once(socket, 'session')
  return { reused: socket.isSessionReused(), session: newest }
}

test('a client resumes its session with a release in another folder', async () => {
  const folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'handover-releases-')))
  onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
  const current = path.join(folder, 'current')
  const deploy = (version: number): void => {
    const release = path.join(folder, String(version))
    mkdirSync(release)
    symlinkSync(programPath('secure.mjs'), path.join(release, 'secure.mjs'))
    rmSync(current, { force: true })
    symlinkSync(release, current)
  }
  deploy(1)
  const program = Program.start('secure.mjs', { cwd: current, env: { KIND: 'sni', PWD: current } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address: { port } } = await program.event('listening') as ProgramEvent & { address: { port: number } }
  const versions = ['TLSv1.2', 'TLSv1.3'] as const
  const first = await Promise.all(versions.map(async (version) => (await handshake(port, version)).session))
  for (const release of [2, 3]) {
    deploy(release)
    await program.hangUp()
    for (const [index, version] of versions.entries()) {
      expect(await handshake(port, version, first[index]), version).toMatchObject({ reused: true })
    }
  }
})
