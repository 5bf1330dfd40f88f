/**
 * A program on a terminal: the hangup of that terminal means the end, as it always did. Every other SIGHUP is a reload: while the terminal
 * is there, and when it has long been gone.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { onTestFinished, expect, test } from 'vitest'
import { commandFile, meansHangup } from '../../helpers/internals.js'
import { type Address, Client } from '../../helpers/client.js'
import { Folder } from '../../helpers/plan.js'
import { exists, programPath, waitFor } from '../../helpers/program.js'

type Line = Readonly<Record<string, unknown>>

/** Standard input and error of the program are the terminal; its events go to a pipe. */
function onTerminal(options: object, env: Readonly<Record<string, string>> = {}, words: readonly string[] = []): {
  until: (look: (line: Line) => unknown) => Promise<Line>; hangUp: () => void; lines: Line[]
} {
  const child = spawn('python3', [path.join(import.meta.dirname, 'terminal.py'), process.execPath, ...words, programPath('drain.mjs')], {
    stdio: ['pipe', 'pipe', 'inherit', 'pipe'],
    env: { ...process.env, OPTIONS: JSON.stringify(options), ...env }
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

test.each([['a program', []], ['a keeper with its worker', [commandFile, 'run', '--spare', 'off']]])('%s is not ended at once by the second SIGHUP of one hangup', async (_who, words) => {
  using folder = new Folder()
  const { until, hangUp, lines } = onTerminal({ linger: 100 }, { HANDOVER_DIR: folder.at('control') }, words)
  const { address, pid } = await until(({ event }) => event === 'listening')
  using busy = await Client.connect(address as Address)
  busy.request('/held')
  await until(({ event }) => event === 'request')
  for (const times of [1, 2]) {
    hangUp()
    await until(() => lines.filter(({ passedOn }) => passedOn === true).length === times)
    await until(({ event }) => event === 'draining')
  }
  process.kill(pid as number, 'SIGUSR2')
  await busy.received(/Connection: close[^]*answer to \/held/)
  expect(await until((line) => 'code' in line && !('event' in line))).toEqual({ code: 0 })
})

test('when the first process of its session ends a program ends, too, though the terminal is still open', async () => {
  const { until, hangUp, lines } = onTerminal({ linger: 100 }, { ENDS_SHELL: '1' })
  await until(({ event }) => event === 'listening')
  hangUp()
  expect(await until(({ event }) => event === 'exit')).toMatchObject({ code: 0 })
  expect(lines.filter(({ generation }) => generation === 2)).toEqual([])
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

test('SIGHUP that a process sends when the terminal is gone is a reload, at once and of each generation', async () => {
  const { until, hangUp } = onTerminal({ linger: 100, undoWindow: 0 }, { KEEPS_HANGUP: '1' })
  const { pid } = await until(({ event }) => event === 'listening')
  hangUp()
  await until((line) => line['hungUp'] === true)
  process.kill(pid as number, 'SIGHUP')
  const second = await until(({ event, to, generation }) => event === 'state' && to === 'serving' && generation === 2)
  process.kill(second['pid'] as number, 'SIGHUP')
  const third = await until(({ event, to, generation }) => event === 'state' && to === 'serving' && generation === 3)
  process.kill(third['pid'] as number, 'SIGTERM')
  expect(await until(({ event, generation }) => event === 'exit' && generation === 3)).toMatchObject({ code: 0 })
})

const kernel = -1
const shell = 100
const deploy = 200
test.each([
  ['the kernel sent it', [kernel], shell, false, true],
  ['a shell passed the hangup on', [shell], shell, true, true],
  ['a shell passed it on, and so did npm', [shell, 300], shell, true, true],
  ['the system does not say who sent it, and the terminal was lost a moment ago', [], shell, true, true],
  ['the system does not say who sent it, and the terminal was lost long ago', [], shell, false, false],
  ['a deploy sent it at the moment when the terminal was lost', [deploy], shell, true, false],
  ['a script that lives on without its terminal sent it', [shell], shell, false, false],
  ['a process of another container sent it', [0], undefined, true, false]
])('where %s it is a hangup or not', (_what, senders, leader, lostJustNow, isHangup) => {
  expect(meansHangup(senders, leader, lostJustNow)).toBe(isHangup)
})
