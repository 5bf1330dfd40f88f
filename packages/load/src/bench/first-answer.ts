/**
 * How long it takes from the signal for a reload until the new version answers for the first time: under `handover run` with a spare and
 * without one, and without a keeper, beside the time from `node app.js` to its first answer. In turns, all on one machine at a time.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from '../example.js'
import { median, ms, table } from '../table.js'
import { untilReloadedOnce } from './compiled-form.js'
import { spareIsReady } from './spare-is-ready.js'

const rounds = 9
const cli = fileURLToPath(new URL('../../../cli/bin/handover.js', import.meta.url))
const moduleOf = (name: string): string => JSON.stringify(createRequire(import.meta.url).resolve(name))

const apps: Readonly<Record<string, () => string>> = {
  http: () => `require('node:http').createServer((_request, response) => { response.end(String(process.pid)) })`,
  express: () => `require(${moduleOf('express')})().get('/', (_request, response) => { response.send(String(process.pid)) })`,
  fastify: () => `require(${moduleOf('fastify')})().get('/', () => String(process.pid))`
}

/** The pid of the process that answers; undefined where none does. */
const answerer = async (port: number): Promise<number | undefined> => await new Promise((resolve) => {
  http.get({ host: '127.0.0.1', port, agent: false }, (response) => {
    let text = ''
    response.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).once('end', () => { resolve(Number(text)) })
  }).once('error', () => { resolve(undefined) })
})

/** Milliseconds until another process answers than `old`. */
async function untilAnswer(port: number, old: number | undefined, begin: () => void): Promise<number> {
  const begun = performance.now()
  begin()
  for (;;) {
    const pid = await answerer(port)
    if (pid !== undefined && pid !== old) return performance.now() - begun
    await sleep(1)
  }
}

interface KeptServer {
  reload(): Promise<number>
  end(): Promise<void>
}

async function keep(file: string, folder: string, name: string, spare: 'on' | 'off'): Promise<KeptServer> {
  const port = await freePort()
  const env = { ...process.env, PORT: String(port), HANDOVER_DIR: folder }
  const keeper = spawn(process.execPath, [cli, 'run', '--name', name, '--spare', spare, file], { env, stdio: 'ignore' })
  const ended = once(keeper, 'exit')
  await untilAnswer(port, undefined, () => undefined)
  const isReady = (): boolean => spare === 'off' || spareIsReady(name, env)
  return {
    reload: async () => {
      while (!isReady()) await sleep(1_000)
      return await untilAnswer(port, await answerer(port), () => { keeper.kill('SIGHUP') })
    },
    end: async () => {
      keeper.kill()
      await ended
    }
  }
}

async function bootPlainly(file: string): Promise<number> {
  const port = await freePort()
  let app: ReturnType<typeof spawn> | undefined
  const env = { ...process.env, PORT: String(port) }
  const time = await untilAnswer(port, undefined, () => { app = spawn(process.execPath, [file], { env, stdio: 'ignore' }) })
  app!.kill()
  await once(app!, 'exit')
  return time
}

/** Without a keeper. `env`: without the compiled form of the core, it is as after the first start. */
async function serveByItself(file: string, folder: string, env: NodeJS.ProcessEnv): Promise<KeptServer> {
  const port = await freePort()
  const all = { ...process.env, NODE_OPTIONS: '', HANDOVER_DIR: folder, HANDOVER_UNDO_WINDOW: '0', PORT: String(port), ...env }
  spawn(process.execPath, [file], { env: all, stdio: 'ignore' })
  await untilAnswer(port, undefined, () => undefined)
  return {
    reload: async () => {
      const old = await answerer(port)
      return await untilAnswer(port, old, () => { process.kill(old!, 'SIGHUP') })
    },
    end: async () => {
      process.kill((await answerer(port))!)
      while (await answerer(port) !== undefined) await sleep(10)
    }
  }
}

async function benchSignal(folder: string): Promise<void> {
  const [plain, file] = [path.join(folder, 'plain.cjs'), path.join(folder, 'core.cjs')]
  const place = `listen(+process.env.PORT, '127.0.0.1')`
  writeFileSync(plain, `${apps['http']!()}.${place}`)
  writeFileSync(file, `require(${moduleOf('@handover/core')}).handover(${apps['http']!()}).${place}`)
  const servers = [await serveByItself(file, folder, { NODE_DISABLE_COMPILE_CACHE: '1' }), await serveByItself(file, folder, {})]
  await untilReloadedOnce(folder, () => servers[1]!.reload())
  const times: number[][] = []
  for (let round = 0; round < rounds; round++) {
    const boot = await bootPlainly(plain)
    const beyond: number[] = []
    for (const server of servers) {
      beyond.push(await server.reload() - boot)
      await sleep(500) // the old process ends
    }
    times.push([boot, ...beyond])
  }
  for (const server of servers) await server.end()
  const [boot = 0, first = 0, later = 0] = [0, 1, 2].map((column) => median(times.map((each) => each[column]!)))
  console.log(`\nFrom HUP to the first answer without a keeper, http and the core, beside the same without the core, ms, median of ${rounds}:\n`)
  console.log(table([
    ['plain boot', 'beyond: first start', 'later', 'ratio'], [ms(boot), ms(first), ms(later), (later / first).toFixed(2)]
  ]))
}

export async function benchFirstAnswer(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  const rows: string[][] = []
  try {
    for (const [name, source] of Object.entries(apps)) {
      const file = path.join(folder, `${name}.cjs`)
      const place = name === 'fastify' ? `{ port: +process.env.PORT, host: '127.0.0.1' }` : `+process.env.PORT, '127.0.0.1'`
      writeFileSync(file, `const app = ${source()}\napp.listen(${place})\n`)
      const [on, off] = [await keep(file, folder, `${name}-on`, 'on'), await keep(file, folder, `${name}-off`, 'off')]
      const times: [number, number, number][] = []
      for (let round = 0; round < rounds; round++) times.push([await bootPlainly(file), await on.reload(), await off.reload()])
      await Promise.all([on.end(), off.end()])
      const [plain = 0, warm = 0, cold = 0] = [0, 1, 2].map((column) => median(times.map((each) => each[column]!)))
      const beyond = (time: number): string[] => [ms(time), ms(time - plain), (time / plain).toFixed(2)]
      rows.push([name, ms(plain), ...beyond(warm), ...beyond(cold)])
    }
    await benchSignal(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  console.log(`\nFrom HUP to the first answer of the new version under handover run, beside node app.js, ms, median of ${rounds} in turns:\n`)
  console.log(table([['', 'plain boot', 'spare', 'beyond', 'ratio', 'no spare', 'beyond', 'ratio'], ...rows]))
}
