/**
 * The calls that wait on one socket take turns, so that their bytes do not mix; each wait ends with its time or its signal.
 *
 * A call that can be done at once does not wait. The waiting call holds a duplicate of the descriptor, so that the caller may close it.
 */

import { closeSync, fstatSync } from 'node:fs'
import { HandoverError } from '../errors.js'
import { systemError } from '../platform/native.js'
import { addon, wrongArgument } from './argument-errors.js'

/** As much as a timer of Node takes. */
const longestTimeoutMs = 2 ** 31 - 1

/** Each wait ends at the first of the two. */
export interface WaitOptions {
  /** Milliseconds for the whole call; without it the call waits as long as it takes. 0: do not wait. */
  readonly timeoutMs?: number | undefined
  /** Rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

export function checkWait({ timeoutMs }: WaitOptions): void {
  if (timeoutMs !== undefined && !(timeoutMs >= 0 && timeoutMs <= longestTimeoutMs)) {
    throw wrongArgument(`timeoutMs is ${timeoutMs}`, `Give milliseconds from 0 to ${longestTimeoutMs}, or leave it out`)
  }
}

export type Direction = 'readable' | 'writable'

/** One call's worth of work on a connection. */
export interface Transfer<T> {
  readonly direction: Direction
  /** Makes the system call; undefined where it would block. */
  attempt(fd: number): T | undefined
  /** What is already done, for the error of a call that is cut short. */
  soFar(): string
}

/** The calls that wait on one socket: they take turns, so that their bytes do not mix. */
interface Queue {
  /** A duplicate: the caller may close the descriptor meanwhile, and its number may become something else. */
  readonly fd: number
  /** All descriptors of one socket share it. */
  readonly inode: number
  calls: number
  last: Promise<void>
}

/** By inode. */
export const queues: Record<Direction, Map<number, Queue>> = { readable: new Map(), writable: new Map() }

export function enter(fd: number, direction: Direction): Queue {
  const inode = fstatSync(fd).ino
  let queue = queues[direction].get(inode)
  if (!queue) {
    const own = addon().duplicate(fd)
    if (own < 0) {
      throw wrongArgument('no descriptor is free to wait with', 'Raise the limit of open files (ulimit -n)', systemError(own, 'fcntl'))
    }
    queue = { fd: own, inode, calls: 0, last: Promise.resolve() }
    queues[direction].set(inode, queue)
  }
  queue.calls += 1
  return queue
}

export function leave(queue: Queue, direction: Direction): void {
  queue.calls -= 1
  if (queue.calls > 0) return
  queues[direction].delete(queue.inode)
  closeSync(queue.fd)
}

/** All that ends a wait before its time: the deadline, the caller's signal, the end of the socket. */
export class Stop {
  #reason: { readonly error: unknown } | undefined
  #interrupt: (() => void) | undefined
  readonly #timer: NodeJS.Timeout | undefined
  readonly #signal: AbortSignal | undefined
  readonly #onAbort = (): void => { this.now(this.#signal?.reason) }

  constructor(transfer: Transfer<unknown>, { timeoutMs, signal }: WaitOptions) {
    this.#signal = signal
    signal?.addEventListener('abort', this.#onAbort)
    if (timeoutMs === undefined) return
    this.#timer = setTimeout(() => {
      const did = transfer.direction === 'readable' ? 'sent nothing' : 'did not take the message'
      this.now(new HandoverError('HANDOVER_FD_TIMEOUT', {
        what: `the peer ${did} within ${timeoutMs} ms`, serving: transfer.soFar(), todo: 'Try again, or give it longer'
      }))
    }, timeoutMs)
  }

  now(error: unknown): void {
    this.#reason ??= { error }
    this.#interrupt?.()
  }

  /** Resolves when `begin` calls `ready`; at a stop calls what `begin` answered, and rejects with the reason. */
  or(begin: (ready: () => void) => () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- the reason is the caller's
      const refuse = (): void => { reject(this.#reason?.error) }
      if (this.#reason) { refuse(); return }
      const cancel = begin(() => {
        this.#interrupt = undefined
        resolve()
      })
      this.#interrupt = () => {
        cancel()
        refuse()
      }
    })
  }

  forget(): void {
    clearTimeout(this.#timer)
    this.#signal?.removeEventListener('abort', this.#onAbort)
  }
}
