/** The option warmUp: a successor answers requests of its own before it serves, and nobody notices but its program. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { get, getHttp2, getSecure } from '../../helpers/ask.js'
import { KeptApp } from '../../helpers/kept-app.js'
import { Program, programPath, waitFor, type ProgramEvent } from '../../helpers/program.js'
import { listeningPorts } from '../../helpers/net-tables.js'

class Warmed implements AsyncDisposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'handover-warm-'))
  readonly #behaviour = path.join(this.folder, 'behaviour')
  readonly program: Program

  constructor(env: Readonly<Record<string, string>> = {}) {
    this.behave('ok')
    this.program = Program.start(programPath('warmed.mjs'), { env: { BEHAVIOUR_FILE: this.#behaviour, ...env } })
  }

  /** Of the versions that start from now on. */
  behave(behaviour: string): void {
    writeFileSync(this.#behaviour, behaviour)
  }

  async port(): Promise<number> {
    return ((await this.program.event('listening'))['address'] as AddressInfo).port
  }

  async reload(): Promise<void> {
    await this.program.event('listening')
    await this.program.hangUp()
  }

  /** What the second version had seen when it began to serve. */
  async before(): Promise<ProgramEvent & { readonly warm: number }> {
    return await this.program.event('state', ({ generation, to }) => generation === 2 && to === 'serving') as ProgramEvent & { readonly warm: number }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
    rmSync(this.folder, { recursive: true })
  }
}

const asks: Readonly<Record<string, (port: number) => Promise<string>>> = {
  http: async (port) => (await get({ port })).body,
  https: async (port) => (await getSecure({ port })).body,
  h2c: async (port) => await getHttp2({ port }, false),
  h2: async (port) => await getHttp2({ port }, true)
}

describe('a successor with warmUp', () => {
  it.each(Object.keys(asks))('has answered some thousand requests of %s in the order of the paths before it serves', async (kind) => {
    await using warmed = new Warmed({ KIND: kind })
    await warmed.reload()
    const { pid, warm, urls, addresses } = await warmed.before()
    expect(Object.keys(urls as object)).toEqual(['/a', '/b?c=d'])
    const [first, second] = Object.values(urls as Record<string, number>) as [number, number]
    expect(first + second).toBe(warm)
    expect(Math.abs(first - second)).toBeLessThan(20)
    expect(Object.keys(addresses as object)).toEqual(['127.0.0.1'])
    expect(await asks[kind]!(await warmed.port())).toBe(`${pid} ${warm}`)
    const [, answered] = /generation 2\) has answered (\d+) of 5000 warm-up requests for \/a, \/b\?c=d in \d+ ms, before it serves/.exec(warmed.program.stderr)!
    expect(Number(answered)).toBeGreaterThan(100)
    expect(Math.abs(Number(answered) - warm)).toBeLessThan(20)
    expect(warmed.program.stderr).not.toMatch(/warn|error/i)
  })

  it('serves on a Unix socket, too', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-warm-'))
    const place = path.join(folder, 'app.sock')
    await using warmed = new Warmed({ LISTEN: place })
    await warmed.reload()
    const { pid, warm } = await warmed.before()
    expect(warm).toBeGreaterThan(100)
    expect((await get(place)).body).toBe(`${pid} ${warm}`)
    rmSync(folder, { recursive: true })
  })

  it('leaves its predecessor in service meanwhile, and its first start as it is', async () => {
    await using warmed = new Warmed()
    const port = await warmed.port()
    expect((await get({ port })).body).toBe(`${warmed.program.pid} 0`)
    const reload = warmed.program.hangUp()
    await warmed.program.event('warm')
    expect((await get({ port })).body).toBe(`${warmed.program.pid} 0`)
    await reload
    expect(warmed.program.events.filter(({ event }) => event === 'warm')).toHaveLength(1)
  })

  it('serves at once where its predecessor dies meanwhile', async () => {
    await using warmed = new Warmed()
    const port = await warmed.port()
    warmed.behave('hang')
    process.kill(warmed.program.pid, 'SIGHUP')
    const { pid } = await warmed.program.event('warm')
    process.kill(warmed.program.pid, 'SIGKILL')
    await warmed.before()
    const [, ms] = /has answered 0 of 5000 warm-up requests for .* in (\d+) ms/.exec(warmed.program.stderr)!
    // Alone it would have gone on for 5 s.
    expect(Number(ms)).toBeLessThan(5_000)
    expect((await get({ port })).body).toMatch(new RegExp(`^${pid} `))
  })

  it('ends without serving where it is stopped meanwhile', async () => {
    await using warmed = new Warmed()
    const port = await warmed.port()
    warmed.behave('hang')
    const reload = warmed.program.hangUp()
    const { pid } = await warmed.program.event('warm')
    process.kill(pid, 'SIGTERM')
    await expect(reload).rejects.toThrow(/generation 2\) ended/)
    expect((await get({ port })).body).toBe(`${warmed.program.pid} 0`)
  })

  it('serves after a part of readyTimeout where nothing is answered, and says so', async () => {
    await using warmed = new Warmed({ OPTIONS: JSON.stringify({ readyTimeout: 1_500 }) })
    await warmed.port()
    warmed.behave('hang')
    await warmed.reload()
    expect(warmed.program.stderr).toMatch(/generation 2\) has answered 0 of 5000 warm-up requests/)
    const { pid } = await warmed.before()
    expect((await get({ port: await warmed.port() })).body).toMatch(new RegExp(`^${pid} `))
  })

  it('has a door for itself alone', async () => {
    await using warmed = new Warmed()
    const port = await warmed.port()
    warmed.behave('hang')
    const reload = warmed.program.hangUp()
    const { pid } = await warmed.program.event('warm')
    const [door] = listeningPorts(pid).filter((each) => each !== port)
    await expect(get({ port: door! }, '/stranger')).rejects.toThrow(/socket hang up|ECONNRESET/)
    await reload
    expect(Object.keys((await warmed.before())['urls'] as object)).not.toContain('/stranger')
  })

  it('says which paths are answered with an error, and serves', async () => {
    await using warmed = new Warmed()
    await warmed.port()
    warmed.behave('503')
    await warmed.reload()
    await warmed.before()
    expect(warmed.program.stderr).toMatch(/a warm-up request GET \/a was answered 503, \d+ times/)
    expect(warmed.program.stderr).toMatch(/a warm-up request GET \/b\?c=d was answered 503, \d+ times/)
  })

  it('fails the reload where the program dies of such a request', async () => {
    await using warmed = new Warmed()
    const port = await warmed.port()
    warmed.behave('throw')
    await expect(warmed.program.hangUp()).rejects.toThrow(/generation 2\) ended with status 1/)
    expect(warmed.program.stderr).toContain('this build cannot answer')
    expect((await get({ port })).body).toBe(`${warmed.program.pid} 0`)
  })

  it('says that nothing of it speaks HTTP', async () => {
    await using warmed = new Warmed({ KIND: 'net' })
    await warmed.reload()
    expect(warmed.program.stderr).toMatch(/the requests of warmUp have nowhere to go: no listener speaks HTTP\. Process \d+ \(generation 2\) goes on without/)
    expect((await warmed.before()).warm).toBe(0)
  })

  it('keeps nothing of it: no connection, no request in its status', async () => {
    await using app = await KeptApp.start(programPath('unaware.cjs'), { env: { CASE: 'plain', HANDOVER_WARM_UP: '/' } })
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
    expect(app.stderr).toMatch(/generation 2\) has answered [1-9]\d+ of 5000 warm-up requests for \/ in/)
    await waitFor(async () => Object.keys((await app.servers())[0]?.connections ?? { http: 1 }).length === 0)
    expect((await app.servers())[0]).toMatchObject({ requests: { total: 0, failed: 0 } })
  })
})
