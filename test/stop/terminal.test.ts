/**
 * A program on a terminal: when the terminal goes away, SIGHUP means the end, as it always did; while it is there, a reload.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { onTestFinished, expect, test } from 'vitest'
import { type Address, Client } from '../helpers/client.js'
import { exists, programPath, waitFor } from '../helpers/program.js'

type Line = Readonly<Record<string, unknown>>

/** Standard input and error of the program are the terminal; its events go to a pipe. */
function onTerminal(options: object): { until: (look: (line: Line) => unknown) => Promise<Line>; hangUp: () => void; lines: Line[] } {
  const child = spawn('python3', [path.join(import.meta.dirname, 'terminal.py'), process.execPath, programPath('drain.mjs')], {
    stdio: ['pipe', 'pipe', 'inherit', 'pipe'],
    env: { ...process.env, OPTIONS: JSON.stringify(options) }
  })
  const lines: Line[] = []
  const watchers = new Set<() => void>()
  for (const stream of [child.stdout!, child.stdio[3] as NodeJS.ReadableStream]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(JSON.parse(line) as Line)
      for (const watcher of watchers) watcher()
    })
  }
  onTestFinished(async () => {
    for (const { pid } of lines) if (typeof pid === 'number' && exists(pid)) process.kill(pid, 'SIGKILL')
    child.stdin!.end()
    if (child.exitCode === null) await once(child, 'exit')
  })
  return {
    lines,
    hangUp: () => { child.stdin!.write('\n') },
    async until(look) {
      for (;;) {
        const found = lines.find(look)
        if (found) return found
        await new Promise<void>((resolve) => {
          const watcher = (): void => {
            watchers.delete(watcher)
            resolve()
          }
          watchers.add(watcher)
        })
      }
    }
  }
}

test('when its terminal goes away a program drains and ends with status 0, without a successor', async () => {
  const { until, hangUp, lines } = onTerminal({ linger: 100 })
  const { address, pid } = await until(({ event }) => event === 'listening')
  using busy = await Client.connect(address as Address)
  busy.request('/held')
  await until(({ event }) => event === 'request')
  hangUp()
  await until(({ event }) => event === 'draining')
  process.kill(pid as number, 'SIGUSR2')
  await busy.received(/Connection: close[^]*answer to \/held/)
  expect(await until((line) => 'code' in line && !('event' in line))).toEqual({ code: 0 })
  expect(new Set(lines.filter(({ event }) => event !== undefined).map(({ generation }) => generation))).toEqual(new Set([1]))
})

test('SIGHUP from anybody else reloads a program on a terminal that is still there', async () => {
  const { until } = onTerminal({ linger: 100 })
  const { pid } = await until(({ event }) => event === 'listening')
  process.kill(pid as number, 'SIGHUP')
  const { pid: successor } = await until(({ event, to, generation }) => event === 'state' && to === 'serving' && generation === 2)
  await until(({ event, generation }) => event === 'exit' && generation === 1)
  expect(await until((line) => 'code' in line && !('event' in line))).toEqual({ code: 0 })
  process.kill(successor as number, 'SIGTERM')
  expect(await until(({ event, generation }) => event === 'exit' && generation === 2)).toMatchObject({ code: 0 })
  await waitFor(() => !exists(successor as number))
})
