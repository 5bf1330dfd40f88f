/**
 * What the tests of @handover/core/fd share: other processes with a connection as descriptor 3, files with a known text, and the
 * count of open descriptors. Nothing here knows what a test expects.
 */

import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { closeFds, socketPair } from '@handover/core/fd'
import { expect, onTestFinished } from 'vitest'

export const peerScript = path.join(import.meta.dirname, 'peer.mjs')

export function openFds(): number {
  return readdirSync('/dev/fd').length
}

/** A directory that is removed after the test. */
export function directory(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'handover-fd-'))
  onTestFinished(() => { rmSync(made, { recursive: true }) })
  return made
}

/** Two connected descriptors. What the test has not closed is closed after it. */
export function pair(): [number, number] {
  const both = socketPair()
  const inodes = both.map(inodeOf)
  // A number that the test closed may be something else by then.
  onTestFinished(() => { closeFds(both.filter((fd, index) => inodeOf(fd) === inodes[index])) })
  return both
}

function inodeOf(fd: number): number | undefined {
  try {
    return fstatSync(fd).ino
  } catch {
    return undefined
  }
}

/** Descriptors of files, one for each text. */
export function files(...texts: string[]): number[] {
  const place = directory()
  const fds = texts.map((text, index) => {
    const file = path.join(place, `${index}`)
    writeFileSync(file, text)
    return openSync(file, 'r')
  })
  onTestFinished(() => { closeFds(fds) })
  return fds
}

/** Reads a descriptor from its start, and closes it. */
export function textOf(fd: number): string {
  const into = Buffer.alloc(100)
  const bytes = readSync(fd, into, 0, into.length, 0)
  closeSync(fd)
  return into.toString('utf8', 0, bytes)
}

export interface Peer {
  readonly pid: number
  readonly connection: number
  /** The next line of JSON that the process writes. */
  said(): Promise<unknown>
  /** Ends its standard input, and resolves with its exit status when it has ended. */
  end(): Promise<number | null>
  kill(): Promise<void>
}

/** Starts a process that has a connection to this one as descriptor 3. It is ended after the test. */
export function startPeer(command: string, ...words: string[]): Peer {
  const [mine, theirs] = pair()
  // The types of Node know only three streams.
  const child = spawn(command, words, { stdio: ['pipe', 'pipe', 'inherit', theirs] }) as ChildProcessByStdio<Writable, Readable, null>
  closeSync(theirs)
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const exit = once(child, 'exit').then(([status]) => status as number | null)
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exit
  })
  expect(child.pid).toBeDefined()
  return {
    pid: child.pid ?? 0,
    connection: mine,
    async said() {
      const line = await lines.next()
      if (line.done) throw new Error('the process ended and said nothing')
      return JSON.parse(line.value) as unknown
    },
    end() {
      child.stdin.end()
      return exit
    },
    async kill() {
      child.kill('SIGKILL')
      await exit
    }
  }
}

export const startNode = (...words: string[]): Peer => startPeer(process.execPath, peerScript, ...words)

/** All that a server sends to a new connection. Rejects when the connection is refused or reset. */
export async function readAll(where: net.NetConnectOpts): Promise<string> {
  const socket = net.connect(where)
  let all = ''
  for await (const text of socket.setEncoding('utf8')) all += text as string
  return all
}

export const toThrowCode = (code: string): object => expect.objectContaining({ name: 'HandoverError', code }) as object
