/**
 * One of the two processes of bench-state.ts: `saves` or `restores`, one way, so many bytes; descriptor 3 leads to the other. The one that
 * saves waits for the word of the other, so that neither's start is measured. Prints one StateLine.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { closeFds, receiveFds, sendFds } from '@handover/core/fd'
import { LoopBudget } from '../../../core/dist/platform/loop-budget.js'
import { smallBytes } from '../../../core/dist/platform/memory-file.js'
import { readSection, writeSection } from '../../../core/dist/sharing/sections/section-file.js'
import type { StateLine, Way } from './state.js'
import { nowMs } from '../client/clock.js'

const [role, way, size] = process.argv.slice(2) as [StateLine['role'], Way, string]
const wanted = Number(size)
const item = 65_536
const channel = 3
const signal = new AbortController().signal

/** What the application holds anyway: the one that saves makes each buffer anew, as a store that reads its entries would. */
function* buffers(): Generator<Buffer> {
  for (let at = 0; at < wanted; at += item) yield Buffer.alloc(item, at / item)
}

/** Entries of about 100 bytes as text. */
function entries(): Map<string, unknown> {
  const map = new Map<string, unknown>()
  for (let id = 0; id * 100 < wanted; id++) map.set(`session-${id}`, {
    id, user: `user ${id}`, seen: new Date(1e12 + id), roles: ['a', `b${id}`]
  })
  return map
}

const status = (field: string): number =>
  Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? NaN) * 1024

/** Begins to watch; its answer ends that. The peak of memory is the kernel's own (VmHWM), set back here. */
function watch(): () => Pick<StateLine, 'stallMs' | 'peakBytes' | 'cpuMs'> {
  global.gc?.()
  writeFileSync('/proc/self/clear_refs', '5') // proc(5): the peak begins anew
  const before = status('VmRSS')
  const cpu = process.cpuUsage()
  let stallMs = 0
  let last = performance.now()
  // A timer, not setImmediate(): it must not keep the loop from sleeping.
  const timer = setInterval(() => {
    const now = performance.now()
    stallMs = Math.max(stallMs, now - last - 1)
    last = now
  }, 1)
  return () => {
    clearInterval(timer)
    stallMs = Math.max(stallMs, performance.now() - last - 1)
    const { user, system } = process.cpuUsage(cpu)
    return { stallMs, peakBytes: Math.max(0, status('VmHWM') - before), cpuMs: (user + system) / 1000 }
  }
}

const about = { name: 'bench', schema: null, phase: 'final', version: null, generation: 1 } as const
const options = { maxBytes: Infinity, signal }

async function save(): Promise<{ bytes: number; from: number }> {
  const value = way === 'value' || way === 'text' ? entries() : buffers()
  // The other process says that it is there.
  closeFds((await receiveFds(channel)).fds)
  done = watch()
  const from = nowMs()
  if (way === 'socket') {
    const socket = new net.Socket({ fd: channel })
    await pipeline(Readable.from(value as Iterable<Buffer>, { objectMode: false }), socket)
    return { bytes: wanted, from }
  }
  if (way === 'small' || way === 'not small') {
    const budget = new LoopBudget()
    const content = 'x'.repeat(way === 'small' ? 100 : smallBytes)
    for (let index = 0; index < wanted; index++) {
      await budget.nextTurn() // as the predecessor does
      const { fd } = await writeSection(about, content, options)
      await sendFds(channel, [fd])
      closeFds([fd])
    }
    return { bytes: wanted * content.length, from }
  }
  const { fd, bytes } = await writeSection(about, value, { ...options, plain: way === 'value' })
  await sendFds(channel, [fd])
  closeFds([fd])
  return { bytes, from }
}

async function restore(): Promise<{ bytes: number; from: number }> {
  await sendFds(channel, [0]) // a descriptor that says nothing: one has to go along
  done = watch()
  const from = nowMs()
  let bytes = 0
  if (way === 'socket') {
    for await (const chunk of new net.Socket({ fd: channel })) bytes += (chunk as Buffer).length
  } else if (way === 'small' || way === 'not small') {
    const budget = new LoopBudget()
    for (; bytes < wanted; bytes++) {
      await budget.nextTurn()
      await readSection((await receiveFds(channel, { maxBytes: 1 })).fds[0]!, { signal })
    }
  } else {
    const { fds } = await receiveFds(channel)
    const { value } = await readSection(fds[0]!, { signal })
    if (way === 'value' || way === 'text') bytes = (value as Map<string, unknown>).size
    else for await (const chunk of value as AsyncIterable<Buffer>) bytes += chunk.length
  }
  if (way !== 'value' && way !== 'text' && bytes !== wanted) throw new Error(`${bytes} bytes came of ${wanted}`)
  return { bytes, from }
}

let done: ReturnType<typeof watch> | undefined
const { bytes, from } = await (role === 'saves' ? save() : restore())
const until = nowMs()
console.log(JSON.stringify({ role, bytes, from, until, ...done!() } satisfies StateLine))
