/**
 * What a keeper starts and kills, in one process: `spawn` of node:child_process makes a process of a fake machine, which inherits copies of
 * the same descriptors, and `process.kill` reaches the processes of that machine and no other.
 */

import childProcess, { type ChildProcess, type SpawnOptions } from 'node:child_process'
import { closeSync, writeSync } from 'node:fs'
import { EventEmitter } from 'node:events'
import { syncBuiltinESMExports } from 'node:module'
import type { FakeMachine } from './fake-host.js'
import { keeperMark, keeperMessages, type KeeperSeat, native, openChannel, parseKeeperMark, successorMark } from './internals.js'

/** Answers what puts back the real ones. */
export function spawnOn(machine: FakeMachine): () => void {
  const own = { spawn: childProcess.spawn, kill: process.kill }
  const spawn = (_file: string, _args: readonly string[], options: SpawnOptions): ChildProcess => start(machine, options)
  childProcess.spawn = spawn as typeof childProcess.spawn
  process.kill = (pid, signal = 'SIGTERM') => {
    const target = machine.alive.find((each) => each.pid === pid)
    if (!target) throw Object.assign(new Error('kill ESRCH'), { code: 'ESRCH' })
    if (signal === 'SIGKILL') target.dies()
    else if (signal !== 0) target.signal(signal as NodeJS.Signals)
    return true
  }
  syncBuiltinESMExports()
  return () => {
    childProcess.spawn = own.spawn
    process.kill = own.kill
    syncBuiltinESMExports()
  }
}

function start(machine: FakeMachine, { env = {}, stdio }: SpawnOptions): ChildProcess {
  const inherits = (fd: unknown): number => native!.duplicate(Number(fd))
  const inheritsEnds = (...ends: readonly [number, number]): [number, number] => [inherits(stdio?.[ends[0]]), inherits(stdio?.[ends[1]])]
  const [messages, descriptors] = (env[successorMark] ?? '').split(',').map(Number)
  const { slot, keeper, name, ...line } = parseKeeperMark(env[keeperMark] ?? '')!
  const stderr = typeof stdio?.[2] === 'number' ? inherits(stdio[2]) : undefined
  const seat: KeeperSeat = { slot, keeper, name, line: openChannel(...inheritsEnds(line.messages, line.descriptors), keeperMessages) }
  const started = machine.spawn(inheritsEnds(messages!, descriptors!), seat)
  const child = Object.assign(new EventEmitter(), { pid: started.pid, kill: () => { started.dies() }, unref: () => undefined })
  setImmediate(() => {
    child.emit('spawn')
    setImmediate(() => { if (!started.end) started.boot() })
  })
  void started.ended.then(({ code, signal }) => {
    if (stderr !== undefined) {
      writeSync(stderr, started.stderr)
      closeSync(stderr)
    }
    child.emit('exit', code, signal)
  })
  return child as unknown as ChildProcess
}
