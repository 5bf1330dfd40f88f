/**
 * Several workers behind one port: `handover run --workers`, the same with --shared, Node's cluster in turns, and pm2. Throughput beside
 * cluster, how connections spread over the workers, and what one reload under load loses.
 *
 * All contenders of one size run at the same time and are measured in turns, so that a machine that becomes slower meets all. pm2 is no
 * dependency: it is installed for the run, into a temporary folder that is also its home, and its daemon ends with `pm2 kill` there. Who
 * cannot run is left out, and why is said.
 */

import { execFile, execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { measure } from './http.js'
import { probe } from '../client/client.js'
import { nowMs, sleep } from '../client/clock.js'
import { type Connection, connect } from '../client/connection.js'
import { Example, freePort } from '../example.js'
import { type LoadProcess, startLoadProcess } from '../client/process.js'
import { seededRandom } from '../client/random.js'
import { requestsOf } from '../client/requests.js'
import { count, median, ms, table } from '../table.js'

/** One that runs. */
interface Contender {
  readonly name: string
  readonly target: { readonly host: string; readonly port: number }
  /** To version 2; resolves when the load has seen it. */
  readonly reload: (load: LoadProcess) => Promise<unknown>
  readonly end: () => Promise<unknown>
}

interface Start {
  readonly name: string
  readonly start: () => Promise<Omit<Contender, 'name'>>
}

const sizes = [2, 4]
const rounds = 5
const spreadConnections = 200
/** How many of them connect at once. */
const atOnce = 10
const reloadLoad = { keepAlive: { clients: 50, thinkMs: 20 }, newConnections: { clients: 5, thinkMs: 20 } }
/** The reload is over when the old version has not answered for so long. */
const quietMs = 1_000
const timeoutMs = 30_000
const server = fileURLToPath(new URL('workers-server.js', import.meta.url))
const cli = fileURLToPath(new URL('../../../cli/dist/bundle/main.js', import.meta.url))
const run = promisify(execFile)

export async function benchWorkers(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  const interrupted = (): void => process.exit(130) // so that what ends with this process does
  process.once('SIGINT', interrupted)
  try {
    const pm2 = await installPm2(folder)
    for (const size of sizes) await compare(size, [
      { name: 'cluster', start: () => startExample(server, [], { CONTENDER: 'cluster', WORKERS: String(size) }) },
      { name: 'handover', start: () => startHandover(folder, size) },
      { name: 'handover --shared', start: () => startHandover(folder, size, '--shared') },
      ...pm2 === undefined ? [] : [{ name: 'pm2', start: () => startPm2(folder, pm2, size) }]
    ])
  } finally {
    process.off('SIGINT', interrupted)
    rmSync(folder, { recursive: true, force: true })
  }
}

async function compare(size: number, starts: readonly Start[]): Promise<void> {
  console.log(`\n${size} workers, ${availableParallelism()} cores, one of which the client needs; ${rounds} rounds, in turns\n`)
  const contenders: (Contender & { readonly rates: number[]; readonly p99s: number[] })[] = []
  try {
    for (const { name, start } of starts) {
      try {
        contenders.push({ name, ...await started(start, size), rates: [], p99s: [] })
      } catch (error) {
        const { message, cause } = error as Error
        console.log(`${name} is left out: ${message}${typeof cause === 'string' && cause !== '' ? `\n${cause}` : ''}`)
      }
    }
    for (const { target } of contenders) await measure(target) // for the optimizing compiler; not counted
    for (let round = 0; round < rounds; round++) {
      for (const { target, rates, p99s } of round % 2 === 0 ? contenders : contenders.toReversed()) {
        const { perSecond, p99 } = await measure(target)
        rates.push(perSecond)
        p99s.push(p99)
      }
    }
    const spreads: number[][] = []
    for (const { target } of contenders) spreads.push(await spreadOf(target, size))
    const cluster = contenders.find(({ name }) => name === 'cluster')
    console.log(table([
      ['', 'requests/s', 'lowest', 'highest', 'of cluster', 'p99 ms', 'connections: min', 'mean', 'max'],
      ...contenders.map(({ name, rates, p99s }, index) => [
        name, count(median(rates)), count(Math.min(...rates)), count(Math.max(...rates)), cluster === undefined ? '' : `${Math.round(100 * median(rates) / median(cluster.rates))} %`,
        ms(median(p99s)), count(Math.min(...spreads[index]!)), count(spreadConnections / size), count(Math.max(...spreads[index]!))
      ])
    ]))
    console.log(`\nOne reload under ${reloadLoad.keepAlive.clients} keep-alive clients and ${reloadLoad.newConnections.clients} with new connections\n`)
    const rows: string[][] = []
    for (const contender of contenders) rows.push([contender.name, ...await reloadOf(contender)])
    console.log(
      table([['', 'requests', 'lost', 'connections opened', 'closed by the server', 'ms to the last old answer', 'slowest ms'], ...rows])
    )
  } finally {
    for (const { end } of contenders) await end()
  }
}

/** How many of the connections each worker has; a worker that answered none has 0. */
async function spreadOf(target: Contender['target'], size: number): Promise<number[]> {
  const nextRequest = requestsOf('keep-alive', { path: '/', ms: 0, chunks: 0, bytes: 0, pauseMs: 0 }, target, 'spread', seededRandom(1))
  const connections: Connection[] = []
  const byPid = new Map<string, number>()
  let left = spreadConnections
  try {
    await Promise.all(Array.from({ length: atOnce }, async () => {
      while (left-- > 0) {
        const connection = await connect(target, timeoutMs, { closedIdle: () => {}, unexpected: () => {} })
        if ('reason' in connection) throw new Error(`a client cannot connect: ${connection.error}`)
        connections.push(connection)
        const { answer, failure } = await connection.request(nextRequest(), timeoutMs)
        if (answer === undefined) throw new Error(`a request got no answer: ${failure.error}`)
        const pid = answer.headers.get('x-pid') ?? ''
        byPid.set(pid, (byPid.get(pid) ?? 0) + 1)
      }
    }))
  } finally {
    for (const connection of connections) connection.close()
  }
  return Array.from({ length: Math.max(size, byPid.size) }, (_, index) => [...byPid.values()][index] ?? 0)
}

async function reloadOf({ target, reload }: Contender): Promise<string[]> {
  const load = startLoadProcess(target, { ...reloadLoad, connectFirst: true })
  try {
    await load.until(({ answers }) => answers > 1_000)
    const before = load.stats()
    await load.mark('reload')
    const begun = nowMs()
    await reload(load)
    let lastOld = begun
    await load.until(({ versions }) => {
      lastOld = Math.max(...versions.filter(({ version }) => version !== '2').map(({ lastAt }) => lastAt))
      return nowMs() - lastOld > quietMs
    })
    const { requests, lost, kinds, closedByServer, latency } = await load.stop()
    const opened = (kinds['keep-alive']?.opened ?? 0) - (before.kinds['keep-alive']?.opened ?? 0)
    const closed = closedByServer.total - before.closedByServer.total
    return [...[requests, lost, opened, closed].map(count), ...[lastOld - begun, latency['reload']?.max ?? NaN].map(ms)]
  } finally {
    load.kill()
  }
}

/** Resolves when all workers answer. Some ways to share a port give one worker all while it has little to do: then after a while. */
async function started(start: Start['start'], size: number): ReturnType<Start['start']> {
  const running = await start()
  try {
    const deadline = nowMs() + timeoutMs
    while (nowMs() < deadline && (await probe(running.target)).answer === undefined) await sleep(50)
    for (let tries = 0; tries < 20 && (await spreadOf(running.target, size)).includes(0); tries++) await sleep(100)
    return running
  } catch (error) {
    await running.end()
    throw error
  }
}

async function startExample(
  script: string, args: readonly string[], env: Readonly<Record<string, string>>
): Promise<Omit<Contender, 'name'>> {
  const example = await Example.start({ script, args, version: '1', env })
  return {
    target: example.target,
    reload: (load) => example.reload(load, example.firstPid, '2'),
    end: () => example.end(5_000, [example.firstPid])
  }
}

function startHandover(folder: string, size: number, ...options: readonly string[]): Promise<Omit<Contender, 'name'>> {
  return startExample(cli, ['run', '--workers', String(size), ...options, server], {
    CONTENDER: 'handover', HANDOVER_NAME: `bench${options.join('')}-${size}`, HANDOVER_DIR: path.join(folder, 'control'),
    HANDOVER_UNDO_WINDOW: '1000'
  })
}

/** The path of its command; undefined, with a word to the user, where it cannot be installed. */
async function installPm2(folder: string): Promise<string | undefined> {
  try {
    await run('npm', ['install', 'pm2', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error'], { timeout: 180_000 })
    return path.join(folder, 'node_modules', 'pm2', 'bin', 'pm2')
  } catch (error) {
    console.log(`pm2 is left out, since it cannot be installed: ${(error as Error).message.trim()}`)
    return undefined
  }
}

async function startPm2(folder: string, pm2: string, size: number): Promise<Omit<Contender, 'name'>> {
  const [home, versionFile] = [path.join(folder, `home-${size}`), path.join(folder, `version-${size}.txt`)]
  const target = { host: '127.0.0.1', port: await freePort() }
  const env = {
    ...process.env, PM2_HOME: home, PM2_DISABLE_VERSION_CHECK: 'true', CONTENDER: 'pm2', PORT: String(target.port),
    APP_VERSION_FILE: versionFile
  }
  const order = (...args: readonly string[]): Promise<unknown> => run(process.execPath, [pm2, ...args], { env, timeout: 60_000 })
  const kill = (): void => { execFileSync(process.execPath, [pm2, 'kill'], { env, stdio: 'ignore' }) }
  const end = async (): Promise<void> => {
    process.off('exit', kill)
    await order('kill')
  }
  process.once('exit', kill)
  writeFileSync(versionFile, '1')
  try {
    await order('start', server, '-i', String(size), '--name', 'bench', '--wait-ready', '--kill-timeout', '5000')
  } catch (error) {
    await end()
    throw error
  }
  return {
    target,
    reload: async (load) => {
      writeFileSync(versionFile, '2')
      await order('reload', 'bench')
      await load.until(({ versions }) => versions.some(({ version }) => version === '2'))
    },
    end
  }
}
