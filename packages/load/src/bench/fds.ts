/**
 * What passing descriptors costs: descriptors per second and round trips between two processes, for 1, 16 and 252 per message, beside
 * child_process.send(handle) and beside a C program of the same system calls (native/bench.c, compiled when it is run).
 * Every receiver closes what it gets. It runs for about 15 seconds. It measures on this machine, now; it promises no number.
 */

import { fork, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import net from 'node:net'
import { devNull, tmpdir } from 'node:os'
import path from 'node:path'
import { closeFds, receiveFds, sendFds, socketPair } from '@handover/core/fd'

export interface FdsRow {
  readonly perMessage: number
  /** Descriptors per second, one way. */
  readonly rate: number
  /** Round trips per second, each with `perMessage` descriptors both ways. */
  readonly trips: number
  /** Undefined where there is no C compiler. */
  readonly c: { readonly rate: number; readonly trips: number } | undefined
}

export interface FdsResult {
  readonly rows: readonly FdsRow[]
  /** child_process.send(handle): handles per second. */
  readonly childProcess: number
}

const sizes = [1, 16, 252]
const measureMs = 800
const end = Buffer.from('E')
const script = import.meta.filename

/** The other process: closes what comes, or sends it back first. */
async function receiver(answers: boolean): Promise<void> {
  for (;;) {
    const { data, fds } = await receiveFds(3)
    const ended = data[0] === end[0]
    if (answers || ended) await sendFds(3, ended ? fds.slice(0, 1) : fds, data)
    closeFds(fds)
    if (ended) return
  }
}

async function measure(kind: 'rate' | 'trip', perMessage: number): Promise<number> {
  const [mine, theirs] = socketPair()
  const child = spawn(process.execPath, [script, kind], { stdio: ['ignore', 'inherit', 'inherit', theirs] })
  const ended = once(child, 'exit')
  closeSync(theirs)
  const file = openSync(devNull, 'r')
  const fds = new Array<number>(perMessage).fill(file)
  const one = Buffer.from('x')
  // The first answer says that the other process is there, and warms both up.
  if (kind === 'trip') for (let trip = 0; trip < 100; trip++) await roundTrip(mine, fds, one)
  else for (let message = 0; message < 500; message++) await sendFds(mine, fds, one)
  let messages = 0
  const start = performance.now()
  for (; messages % 16 !== 0 || performance.now() - start < measureMs; messages++) {
    if (kind === 'trip') await roundTrip(mine, fds, one)
    else await sendFds(mine, fds, one)
  }
  await roundTrip(mine, [file], end)
  const seconds = (performance.now() - start) / 1000
  closeFds([mine, file])
  await ended
  return (messages / seconds) * (kind === 'trip' ? 1 : perMessage)
}

async function roundTrip(connection: number, fds: readonly number[], data: Uint8Array): Promise<void> {
  await sendFds(connection, fds, data)
  closeFds((await receiveFds(connection)).fds)
}

/** Node's own way: one handle per message, each acknowledged. The child closes it. */
async function measureChildProcess(): Promise<number> {
  const child: ChildProcess = fork(script, ['handles'])
  const ended = once(child, 'exit')
  await once(child, 'message')
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  let messages = 0
  const start = performance.now()
  while (performance.now() - start < measureMs) {
    // A batch at a time: Node queues them and sends the next one when the last is acknowledged.
    const batch = Array.from({ length: 50 }, () => new Promise<void>((resolve) => { child.send('x', server, () => { resolve() }) }))
    await Promise.all(batch)
    messages += batch.length
  }
  const last = once(child, 'message')
  child.send('end')
  await last
  const seconds = (performance.now() - start) / 1000
  server.close()
  await ended
  return messages / seconds
}

function handles(): void {
  process.on('message', (message, handle) => {
    (handle as net.Server | undefined)?.close()
    if (message === 'end') process.send?.('ended', () => { process.disconnect() })
  })
  process.send?.('here')
}

type C = (kind: 'rate' | 'trip', perMessage: number) => number

/** Compiles the C program; undefined where that cannot be done. */
function compile(directory: string): C | undefined {
  const source = path.join(import.meta.dirname, '..', '..', '..', '..', 'native', 'bench.c')
  const program = path.join(directory, 'bench')
  if (spawnSync('cc', ['-O2', '-o', program, source], { stdio: ['ignore', 'ignore', 'inherit'] }).status !== 0) return undefined
  return (kind, perMessage) => Number(spawnSync(program, [kind, `${perMessage}`, `${measureMs}`], { encoding: 'utf8' }).stdout)
}

const count = (value: number): string => Math.round(value).toLocaleString('en')

function print({ rows, childProcess }: FdsResult): void {
  console.log(`Node ${process.version}, ${process.platform}-${process.arch}: passing descriptors between two processes\n`)
  console.log('| per message | descriptors/s | C | of C | of child_process.send | round trips/s | C | of C |')
  console.log('| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |')
  for (const { perMessage, rate, trips, c } of rows) {
    const beside = (ours: number, theirs: number | undefined): string => (theirs === undefined ? '| |' : `${count(theirs)} | ${Math.round((100 * ours) / theirs)} % |`)
    console.log(`| ${perMessage} | ${count(rate)} | ${beside(rate, c?.rate)} ${Math.round(rate / childProcess)} × | ${count(trips)} | ${beside(trips, c?.trips)}`)
  }
  console.log(`\nchild_process.send(handle): ${count(childProcess)} handles/s`)
  if (rows.some(({ c }) => c === undefined)) console.log('There is no C compiler (cc) here, so there are no numbers of C.')
}

/** Measures for about 15 seconds, prints a table and answers its numbers. */
export async function benchFds(): Promise<FdsResult> {
  const directory = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  try {
    const c = compile(directory)
    const rows: FdsRow[] = []
    for (const perMessage of sizes) {
      rows.push({
        perMessage,
        rate: await measure('rate', perMessage),
        trips: await measure('trip', perMessage),
        c: c && { rate: c('rate', perMessage), trips: c('trip', perMessage) }
      })
    }
    const result = { rows, childProcess: await measureChildProcess() }
    print(result)
    return result
  } finally {
    rmSync(directory, { recursive: true })
  }
}

// Run as a program, it is the benchmark, or with a word the other process of one measure.
if (process.argv[1] === script) {
  const role = process.argv[2]
  if (role === 'handles') handles()
  else if (role === 'rate' || role === 'trip') await receiver(role === 'trip')
  else await benchFds()
}
