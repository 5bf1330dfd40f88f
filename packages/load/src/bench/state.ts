/**
 * What carrying state to another process takes: two processes, one that saves and one that restores. Streams of 64 KiB buffers through a
 * sealed file in memory (@handover/core's section-file.ts) and, beside it, through a Unix stream socket with backpressure; and one value, a
 * Map of entries, as text (before) and as V8 writes it (now). Then 1,000 sections that are small, a file each, beside 1,000 that are just
 * too large to be written and read at once; and small ones in whole reloads, where they go together.
 *
 * For each the time from the first byte saved to the last restored, and for both processes the longest stall of the event loop and the peak
 * of memory beyond what they had before, as a factor of the section. The file itself is memory of neither process until its last descriptor
 * is closed: as large as the section.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { closeFds, socketPair } from '@handover/core/fd'
import { count, median, ms, table } from '../table.js'

export type Way = 'file' | 'socket' | 'value' | 'text' | 'small' | 'not small'

/** What each of the two processes prints at its end. */
export interface StateLine {
  readonly role: 'saves' | 'restores'
  /** Of the section: what was carried. */
  readonly bytes: number
  /** nowMs() of the first and of the last that it had to do. */
  readonly from: number
  readonly until: number
  readonly stallMs: number
  readonly peakBytes: number
  readonly cpuMs: number
}

const mebi = 1_048_576
const script = fileURLToPath(new URL('state-process.js', import.meta.url))
const rows: readonly (readonly [Way, readonly number[]])[] = [
  ['file', [1, 16, 256, 1_024]], ['socket', [1, 16, 256, 1_024]], ['text', [1, 4, 16]], ['value', [1, 4, 16]],
  ['small', [1_000 / mebi]], ['not small', [1_000 / mebi]]
]
const rounds = 3

const heads = ['way', 'MiB', 'ms', 'from-to', 'stall saves', 'restores', 'peak MiB saves', 'peak MiB restores', 'CPU ms saves', 'restores']
const said: Readonly<Record<Way, string>> = { file: 'file, stream', socket: 'socket, stream', text: 'one Map, as text', value: 'one Map, as V8 writes it', small: '1,000 of 100 bytes', 'not small': '1,000 of 16 KiB' }

async function run(way: Way, bytes: number): Promise<readonly [StateLine, StateLine]> {
  const [a, b] = socketPair()
  const lines = (['saves', 'restores'] as const).map(async (role, index) => {
    const child = spawn(process.execPath, [
      '--expose-gc', script, role, way, String(bytes)
    ], { stdio: ['ignore', 'pipe', 'inherit', [a, b][index]!] })
    const exited = once(child, 'exit')
    let found: StateLine | undefined
    for await (const line of createInterface({ input: child.stdout! })) found = JSON.parse(line) as StateLine
    const [status, signal] = await exited as [number | null, string | null]
    if (!found) throw new Error(`the process that ${role} ended without a word (${signal ?? `exit ${status}`})`)
    return found
  })
  closeFds([a, b])
  return await Promise.all(lines) as unknown as readonly [StateLine, StateLine]
}

/** The round in the middle, by the time it took. */
const middle = <T extends { readonly took: number }>(list: readonly T[]): T => list.toSorted((x, y) => x.took - y.took)[list.length >> 1]!

export async function benchState(): Promise<void> {
  console.log(`Node ${process.version}, ${process.platform}-${process.arch}: state to another process; of ${rounds} rounds the one in the middle, and how far they lie apart\n`)
  const took = new Map<Way, number>()
  for (const [way, sizes] of rows) {
    const cells: string[][] = []
    for (const size of sizes) {
      const done = []
      for (let round = 0; round < rounds; round++) {
        const [saves, restores] = await run(way, Math.round(size * mebi))
        done.push({ saves, restores, took: restores.until - saves.from })
      }
      const { saves, restores, took: time } = middle(done)
      took.set(way, time)
      const peak = ({ peakBytes }: StateLine): string => `${count(peakBytes / mebi)} (${(peakBytes / saves.bytes).toFixed(2)})`
      cells.push([
        said[way], count(saves.bytes / mebi), ms(time), `${ms(Math.min(...done.map((each) => each.took)))}-${ms(Math.max(...done.map((each) => each.took)))}`,
        ms(saves.stallMs), ms(restores.stallMs), peak(saves), peak(restores), ms(saves.cpuMs), ms(restores.cpuMs)
      ])
    }
    // A table for each way, as soon as it is there: all of them take a minute or more.
    console.log(`${table([heads, ...cells])}\n`)
  }
  const [text, now] = [took.get('text')!, took.get('value')!]
  console.log(table([['one Map of 16 MiB', 'as text, ms', 'as V8 writes it', 'ratio'], ['', ms(text), ms(now), (now / text).toFixed(2)]]))
  await benchSections()
}

interface ReloadFigures {
  readonly prepareMs: number
  /** Of the old process, from the request until the switch. */
  readonly stallMs: number
  /** Of the reload. */
  readonly oldCpuMs: number
  /** From its start until it serves. */
  readonly newCpuMs: number
}

/** Of whole reloads, between fresh processes, in turns. Their aim is what a thousand take beyond one. */
async function benchSections(): Promise<void> {
  const found: (ReloadFigures & { readonly count: number })[] = []
  for (let round = 0; round < 2 * rounds + 1; round++) {
    for (const sections of [1, 100, 1_000]) found.push({ count: sections, ...await reloadWith(sections) })
  }
  const middleOf = (sections: number, key: keyof ReloadFigures): number =>
    median(found.filter(({ count: of }) => of === sections).map((one) => one[key]))
  const keys = ['prepareMs', 'stallMs', 'oldCpuMs', 'newCpuMs'] as const
  const rows = [1, 100, 1_000].map((sections) => [count(sections), ...keys.map((key) => ms(middleOf(sections, key)))])
  const beyond = ['1,000 beyond 1', ...keys.map((key) => ms(middleOf(1_000, key) - middleOf(1, key)))]
  console.log(`\n${table([['small sections in a reload', 'prepare ms', 'stall of the old', 'CPU of the old', 'CPU of the new'], ...rows, beyond])}`)
}

async function reloadWith(sections: number): Promise<ReloadFigures> {
  const server = spawn(process.execPath, [fileURLToPath(new URL('sections-server.js', import.meta.url))], {
    env: { ...process.env, SECTIONS: String(sections) }, stdio: ['ignore', 'pipe', 'ignore']
  })
  let result: { prepareMs: number; stallMs: number; cpuMs: number } | undefined
  const served: { serving: number; cpuMs: number }[] = []
  for await (const line of createInterface({ input: server.stdout })) {
    const said = JSON.parse(line) as { serving: number; cpuMs: number } | { prepareMs: number; stallMs: number; cpuMs: number }
    if ('prepareMs' in said) result = said
    else if (served.push(said) === 1) process.kill(said.serving, 'SIGUSR2')
    if (result && served.length > 1) break
  }
  for (const { serving } of served.slice(1)) process.kill(serving)
  if (!result) throw new Error('the reload failed')
  return { prepareMs: result.prepareMs, stallMs: result.stallMs, oldCpuMs: result.cpuMs, newCpuMs: served[1]!.cpuMs }
}
