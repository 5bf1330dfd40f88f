/**
 * Connects to control sockets: as the command that asks, as a successor that looks for its predecessor, as a keeper that looks for workers.
 *
 * The user of the process at the other end is checked before anything is sent. One process at a time takes a name.
 */

import { closeSync, lstatSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { HandoverError } from '../errors.js'
import { addon } from '../platform/native.js'
import { secretWord } from '../platform/on-demand.js'
import { BlockingChannel } from '../protocol/blocking-channel.js'
import { openChannel, type Channel } from '../protocol/channel.js'
import { workerMessages, type KeeperMessage, type WorkerMessage } from '../protocol/keeper-messages.js'
import { filesOf, inFirstUsablePlace } from './control-places.js'
import { checkPeer, connectTo, hiddenHolder, listenAt, pidBehind, underLock } from './control-files.js'

/** How long a process may take to make its path again, and how often it is looked for. */
const hiddenMs = 5_000
const hiddenLookMs = 50
/** How long another process may hold the lock of a directory where this one serves nothing yet. */
const lockedMs = 2_000

/**
 * A connection to a control socket, for one request. Undefined where no process listens. Throws HANDOVER_PEER_UID where the process of
 * another user listens (but root may ask that of the directory's owner), and system errors: EACCES where the socket is another user's,
 * EAGAIN where so many wait already that the process seems to hang.
 */
export function connectControl(file: string): net.Socket | undefined {
  const fd = connectTo(file)
  if (fd === undefined) return undefined
  try {
    checkPeer(fd, 'process that holds the control socket', lstatSync(path.dirname(file)).uid)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return new net.Socket({ fd })
}

/**
 * The process that made this socket listen, as this pid namespace knows it; 0 where it is in another one. Of a socket that was handed over
 * it is the first owner. Undefined where no process listens, or it cannot be asked.
 */
export function listenerPid(file: string): number | undefined {
  const fd = addon().connectUnix(file)
  return fd < 0 ? undefined : pidBehind(fd)
}

export interface TakenName {
  readonly file: string
  readonly listening: number
  /** Why a better directory is not used. */
  readonly insteadOf: string | undefined
  /** A process that has the name and hangs; its path was removed. */
  readonly hidden: number | undefined
}

/**
 * Looks for the process of this name; where there is none, this process takes the name. A process whose path was removed may have the name:
 * then this blocks the thread until that process has made its path again. Throws HANDOVER_CONTROL_SOCKET for a relative HANDOVER_DIR,
 * HANDOVER_PEER_UID, HANDOVER_PREDECESSOR_SILENT, and what keeps the directory from being used.
 */
export const findOrBecome = (name: string): { readonly predecessor: BlockingChannel } | TakenName => takeUnless(name, (file) => {
  const pair = connectPair(file)
  return pair && { predecessor: new BlockingChannel(...pair) }
}, hiddenMs, lockedMs)

/** Takes the name where no process listens under it. `patienceMs`: for the lock of the directory. Throws as `findOrBecome` does. */
export const takeName = (name: string, patienceMs = 50): TakenName | { readonly takenBy: number } => takeUnless(name, (file) => {
  const fd = connect(file)
  return fd === undefined ? undefined : { takenBy: pidBehind(fd) }
}, 0, patienceMs)

/** `look` is called for each path where the name could stand. `patienceMs`: how long a process whose path was removed is waited for. */
function takeUnless<T>(name: string, look: (file: string) => T | undefined, patienceMs: number, lockedMs: number): T | TakenName {
  const until = performance.now() + patienceMs
  for (;;) {
    const found = inFirstUsablePlace<T | TakenName | undefined>(name, (file, insteadOf) => underLock(path.dirname(file), lockedMs, () => {
      for (const other of new Set([...filesOf(name), file])) {
        const process = look(other)
        if (process !== undefined) return process
      }
      const hidden = hiddenHolder(name)
      return hidden !== undefined && performance.now() < until ? undefined : { file, listening: listenAt(file), insteadOf, hidden }
    }))
    if (found !== undefined) return found
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, hiddenLookMs)
  }
}

function connect(file: string): number | undefined {
  try {
    return connectTo(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    const what = `the process that listens at ${file} does not answer: so many wait already`
    throw new HandoverError('HANDOVER_PREDECESSOR_SILENT', {
      what, serving: 'This process listens to nothing', todo: 'See whether the event loop of that one is blocked'
    })
  }
}

/**
 * Two connections, for messages and for descriptors. A token that both send first says that they belong together; with a `slot` a keeper
 * calls. Undefined where no process listens.
 */
function connectPair(file: string, slot?: number): readonly [number, number] | undefined {
  const fds: number[] = []
  let isWhole = false
  try {
    for (const at of [0, 1]) {
      const fd = connect(file)
      if (fd === undefined) return undefined
      fds[at] = fd
    }
    const [messages, descriptors] = fds as [number, number]
    checkPeer(messages, 'process that holds the control socket')
    const token = secretWord()
    const line = (text: object): Buffer => Buffer.from(`${JSON.stringify(text)}\n`)
    addon().sendMessage(descriptors, line({ type: 'descriptors', token }), [])
    addon().sendMessage(messages, line({ type: 'messages', token, ...(slot !== undefined && { slot }) }), [])
    isWhole = true
    return [messages, descriptors]
  } finally {
    if (!isWhole) for (const fd of fds) closeSync(fd)
  }
}

/**
 * A keeper's end of a new link to the process of this socket, which has no other keeper from then on. Undefined where no process listens.
 * Throws as `connectControl` does.
 */
export function connectKeeper(file: string, slot: number): Channel<WorkerMessage, KeeperMessage> | undefined {
  const pair = connectPair(file, slot)
  return pair && openChannel(...pair, workerMessages)
}
