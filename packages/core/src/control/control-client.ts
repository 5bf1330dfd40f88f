/**
 * Connects to control sockets: as the command that asks, as a successor that looks for its predecessor, as a keeper that looks for workers.
 *
 * The user of the process at the other end is checked before anything is said. A name is taken by one process at a time.
 */

import { randomBytes } from 'node:crypto'
import { closeSync, lstatSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { HandoverError } from '../errors.js'
import { addon } from '../platform/native.js'
import { BlockingChannel } from '../protocol/blocking-channel.js'
import { Channel, openChannel } from '../protocol/channel.js'
import { workerMessages, type KeeperMessage, type WorkerMessage } from '../protocol/keeper-messages.js'
import { filesOf, inFirstUsablePlace } from './control-places.js'
import { connectTo, hiddenHolder, listenAt, underLock } from './control-files.js'
import { checkPeer } from './peer-check.js'

/** How long a process may take to make its path again, and how often it is looked for. */
const hiddenMs = 5_000
const hiddenLookMs = 50

/**
 * A connection to a control socket, for one request. Undefined where nobody listens. Throws HANDOVER_PEER_UID where the process of
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
 * The process that made this socket listen, as this pid namespace knows it (SO_PEERCRED of a connection to it); 0 where it is in
 * another one. Of a socket that was handed over it is the first of its owners. Undefined where nobody listens, or it cannot be asked.
 */
export function listenerPid(file: string): number | undefined {
  const fd = addon().connectUnix(file)
  if (fd < 0) return undefined
  const peer = addon().peerCredentials(fd)
  closeSync(fd)
  return typeof peer === 'number' ? undefined : peer.pid
}

export interface TakenName {
  readonly file: string
  readonly listening: number
  /** Why a better directory is not used. */
  readonly insteadOf: string | undefined
  /** A process that has the name and hangs; its path was removed. */
  readonly hidden: number | undefined
}

/** What the first listen() of a named process finds: a process that serves under the name, or a free name which is now ours. */
export type Found = { readonly predecessor: BlockingChannel } | TakenName

/**
 * Looks for the process of this name and, where there is none, takes the name. Where one lives whose path was removed, it waits until
 * that one has made it again: it blocks this thread. Throws HANDOVER_CONTROL_SOCKET for a relative HANDOVER_DIR, HANDOVER_PEER_UID,
 * HANDOVER_PREDECESSOR_SILENT, and whatever keeps the directory from being used.
 */
export function findOrBecome(name: string): Found {
  const deadline = performance.now() + hiddenMs
  for (;;) {
    const found = takeUnless(name, (file) => {
      const predecessor = contact(file)
      return predecessor && { predecessor }
    }, performance.now() < deadline)
    if (found !== 'hidden') return found
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, hiddenLookMs)
  }
}

/** Takes the name where nobody listens under it. Throws as `findOrBecome` does. */
export function takeName(name: string): TakenName | { readonly takenBy: number } {
  const found = takeUnless(name, (file) => {
    const takenBy = listenerAt(file)
    return takenBy === undefined ? undefined : { takenBy }
  }, false)
  if (found === 'hidden') throw new Error('a hidden process was not to be waited for')
  return found
}

/** One process at a time. `look` is asked for each path where the name could stand; `waits`: for one whose path was removed. */
function takeUnless<T>(name: string, look: (file: string) => T | undefined, waits: boolean): T | TakenName | 'hidden' {
  return inFirstUsablePlace<T | TakenName | 'hidden'>(name, (file, insteadOf) => underLock(path.dirname(file), () => {
    for (const other of new Set([...filesOf(name), file])) {
      const found = look(other)
      if (found !== undefined) return found
    }
    const hidden = hiddenHolder(name)
    return hidden !== undefined && waits ? 'hidden' : { file, listening: listenAt(file), insteadOf, hidden }
  }))
}

/** Who listens there: a pid, 0 where the system cannot tell. */
function listenerAt(file: string): number | undefined {
  const fd = connect(file)
  if (fd === undefined) return undefined
  const peer = addon().peerCredentials(fd)
  closeSync(fd)
  return typeof peer === 'number' ? 0 : peer.pid
}

function connect(file: string): number | undefined {
  try {
    return connectTo(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    throw new HandoverError('HANDOVER_PREDECESSOR_SILENT', {
      what: `the process that listens at ${file} does not answer: so many wait already`,
      serving: 'This process listens to nothing',
      todo: 'See whether the event loop of that one is blocked'
    })
  }
}

/** The second connection says which first one it belongs to; it says so first. Undefined where nobody listens. */
function contact(file: string): BlockingChannel | undefined {
  const pair = connectPair(file)
  return pair && new BlockingChannel(...pair)
}

/** For messages and for descriptors. With a `slot` a keeper calls. */
function connectPair(file: string, slot?: number): readonly [number, number] | undefined {
  const messages = connect(file)
  if (messages === undefined) return undefined
  let descriptors: number | undefined
  try {
    descriptors = connect(file)
  } finally {
    if (descriptors === undefined) closeSync(messages)
  }
  if (descriptors === undefined) return undefined
  const token = randomBytes(16).toString('hex')
  try {
    checkPeer(messages, 'process that holds the control socket')
    const line = (text: object): Buffer => Buffer.from(`${JSON.stringify(text)}\n`)
    addon().sendMessage(descriptors, line({ type: 'descriptors', token }), [])
    addon().sendMessage(messages, line({ type: 'messages', token, ...(slot !== undefined && { slot }) }), [])
    return [messages, descriptors]
  } catch (error) {
    closeSync(messages)
    closeSync(descriptors)
    throw error
  }
}

/**
 * A keeper's end of a new line to the process of this socket, which keeps that line alone from then on. Undefined where nobody listens.
 * Throws as connectControl does.
 */
export function connectKeeper(file: string, slot: number): Channel<WorkerMessage, KeeperMessage> | undefined {
  const pair = connectPair(file, slot)
  return pair && openChannel(...pair, workerMessages)
}
