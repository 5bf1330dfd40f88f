/**
 * The same load as startLoad(), in a forked process. The child ends at stop(), and with this process in any case.
 */

import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { untilStats, type Load, type LoadOptions } from './client.js'
import type { FromWorker, ToWorker } from './messages.js'
import { outside, Tally, type LoadResult, type LoadStats } from './tally.js'
import type { Target } from './target.js'

/** A load in a process of its own. */
export interface LoadProcess extends Load {
  /** Undefined where it could not be started. */
  readonly pid: number | undefined
  /** Ends the process without a result; whatever waits rejects. No effect after its end. */
  kill(): void
}

/**
 * Starts the load; messages wait until the child is up. When the child ends unasked, everything that waits rejects.
 */
export function startLoadProcess(target: Target, options: LoadOptions): LoadProcess {
  const child = fork(fileURLToPath(new URL('./worker.js', import.meta.url)), [], {
    execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc']
  })
  const waiting = new Map<number | 'stop', { resolve: (answer: unknown) => void; reject: (error: Error) => void }>()
  let stats: LoadStats = new Tally().stats()
  let failure: Error | undefined
  let stopped: Promise<LoadResult> | undefined
  let marksSent = 0

  const fail = (error: Error): void => {
    failure ??= error
    for (const { reject } of waiting.values()) reject(failure)
    waiting.clear()
  }
  const ask = <Answer>(key: number | 'stop', message: ToWorker): Promise<Answer> => new Promise((resolve, reject) => {
    if (failure !== undefined) return reject(failure)
    waiting.set(key, { resolve: resolve as (answer: unknown) => void, reject })
    child.send(message)
  })
  const answer = (key: number | 'stop', result?: LoadResult): void => {
    waiting.get(key)?.resolve(result)
    waiting.delete(key)
  }
  child.on('error', fail)
  child.on('exit', (code, signal) => fail(new Error(`the process of the load (${child.pid}) ended: ${signal ?? `exit ${code}`}`)))
  child.on('message', (message: FromWorker) => {
    switch (message.type) {
      case 'stats':
        stats = message.stats
        break
      case 'marked':
        answer(message.id)
        break
      case 'stopped':
        stats = message.result
        answer('stop', message.result)
        break
    }
  })
  child.send({ type: 'start', target, options } satisfies ToWorker)

  const isStopped = (): boolean => {
    if (stopped === undefined && failure !== undefined) throw failure
    return stopped !== undefined
  }
  const load: Load = {
    stats: () => stats,
    until: (condition, timeoutMs) => untilStats(load, isStopped, condition, timeoutMs),
    mark: (name = outside) => {
      const id = ++marksSent
      return ask(id, { type: 'mark', id, name })
    },
    stop: () => stopped ??= ask('stop', { type: 'stop' })
  }
  return { ...load, pid: child.pid, kill: () => child.kill('SIGKILL') }
}
