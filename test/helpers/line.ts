/** A worker as the keeper has it, on a real line, whose other end is the test's. */

import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  addon, openChannel, openPairs, type CountedBy, type ProcessEnd, type KeeperMessage, type LifecycleState, type WorkerMessage
} from '@handover/core/internal'
import { type Line, keeperMessages, workerMessages, Worker, type WorkerSide } from './internals.js'
import { descriptorsOf, waitFor } from './program.js'

/** Files as they travel: the descriptor is the caller's. */
export class Files implements Disposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'handover-files-'))
  #made = 0

  make(text: string): number {
    const file = path.join(this.folder, String(++this.#made))
    writeFileSync(file, text)
    return openSync(file, 'r')
  }

  /** How many descriptors of them this process has. */
  get open(): number {
    return [...descriptorsOf(process.pid).values()].filter((target) => target.startsWith(this.folder)).length
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Reads a file whole, and closes it. */
export function readAndClose(fd: number): string {
  const text = Buffer.alloc(fstatSync(fd).size)
  readSync(fd, text, 0, text.length, 0)
  closeSync(fd)
  return text.toString()
}

/**
 * No process has such a pid: Linux has 4,194,304 at most. None of a fake machine has one either (fake-host.ts): a worker that hung up is
 * killed after two seconds, which may be in the next test file.
 */
let pids = 7_000_000

/** The process at the other end of the line of `worker`. It hears nothing by itself: `said` is what has arrived. */
export class FarEnd {
  readonly worker: Worker
  readonly said: KeeperMessage[] = []
  readonly #channel: ReturnType<typeof openChannel<KeeperMessage, WorkerMessage>>
  #end: (how: ProcessEnd) => void = () => undefined
  /** Is called for each word, in the order of arrival. */
  hears: (word: KeeperMessage, fds: readonly number[]) => void = () => undefined

  constructor(side: WorkerSide, slot = 0) {
    const [[ours, theirs], [ourDescriptors, theirDescriptors]] = openPairs(addon(), false)
    const line: Line = openChannel(ours, ourDescriptors, workerMessages)
    const ended = new Promise<ProcessEnd>((resolve) => { this.#end = resolve })
    this.worker = new Worker(line, { pid: ++pids, slot, ended }, side)
    this.#channel = openChannel(theirs, theirDescriptors, keeperMessages)
    void this.#channel.hearAll(({ message, fds, missing }) => {
      if (missing) throw new Error(`${missing.arrived} of ${missing.counted} descriptors arrived`)
      this.hears(message, fds)
      this.said.push(message)
    }, (what) => { throw new Error(what) })
    this.say({ type: 'hello', protocol: 1, pid: this.worker.pid })
  }

  /** Resolves when the keeper has heard of the state. */
  async is(state: LifecycleState): Promise<this> {
    this.say({ type: 'state', state, generation: 1 })
    await waitFor(() => this.worker.state === state)
    return this
  }

  /** The descriptor stays open. */
  say(word: WorkerMessage, fd?: number): void {
    this.#channel.send(word, fd === undefined ? [] : [fd])
  }

  /** A file of this text goes first. */
  sayWith(word: WorkerMessage, files: Files, text: string): void {
    const fd = files.make(text)
    this.say(word, fd)
    closeSync(fd)
  }

  /** Resolves when the keeper knows. `retiring`: it was to end. */
  async ends(retiring = false): Promise<void> {
    this.worker.retiring = retiring
    this.#channel.close()
    this.#end(retiring ? { code: 0, signal: null } : { code: null, signal: 'SIGKILL' })
    await this.worker.ended
    await waitFor(() => this.worker.how !== undefined)
  }

  close(): void {
    this.#channel.close()
  }
}

export type { CountedBy }
