/**
 * The files of control sockets: which process listens at a path, the taking of a path by one process at a time, a process whose path was
 * removed, and processes that listen where nobody looks.
 *
 * A process keeps its name when its path is removed, by a cleaner for instance. It makes the path again (control-socket.ts). Until then the
 * kernel knows where its socket was bound, so that no other process takes the name.
 */

import { closeSync, constants, existsSync, fstatSync, openSync, readdirSync, readFileSync, renameSync, statSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { addon, check, systemError } from '../platform/native.js'
import { socketsOf } from '../platform/processes.js'
import { HandoverError } from '../errors.js'
import { isUsable, PlaceProblem, places, placesOfOthers, userId } from './control-places.js'

/** In the flags of /proc/net/unix: the socket listens. */
const listens = '00010000'
/** In one line. */
const mostNamed = 4
/** How often a lock is tried that another process has: it has it for a moment. */
const lockLookMs = 5
const temporary = (file: string): string => `${file}.new`

/** A connection. Undefined where no process listens: there is no file, or it is stale, or its process is about to end. */
export function connectTo(file: string): number | undefined {
  const fd = addon().connectUnix(file)
  if (fd >= 0) return fd
  const error = systemError(fd, `connect ${file}`)
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') return undefined
  throw error
}

/** The pid of the process at the other end, as this pid namespace knows it, else 0. Closes the connection. */
export function pidBehind(fd: number): number {
  const peer = addon().peerCredentials(fd)
  closeSync(fd)
  return typeof peer === 'number' ? 0 : peer.pid
}

/**
 * Runs `act` while no other process does so for the same directory, by flock(2). Blocks the thread. Throws a PlaceProblem where another
 * process holds the lock for longer than `patienceMs`: a program of the user's, or one that was stopped meanwhile.
 */
export function underLock<T>(folder: string, patienceMs: number, act: () => T): T {
  const until = performance.now() + patienceMs
  for (;;) {
    const lock = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      lockBy(lock, folder, until)
      // It may have been removed and made again while this process waited.
      const { dev, ino } = fstatSync(lock)
      const now = statSync(folder)
      if (now.dev === dev && now.ino === ino) return act()
    } finally {
      closeSync(lock)
    }
  }
}

function lockBy(lock: number, folder: string, until: number): void {
  for (;;) {
    const error = addon().lock(lock)
    if (error >= 0) return
    // Some network file systems lock no directories, and some filters of system calls nothing at all: two starts in one moment may both
    // take a name then, which each of them sees later (control-socket.ts). Without a name nothing would find the app.
    if (systemError(error, 'flock').code !== 'EAGAIN') return
    if (performance.now() > until) {
      throw new PlaceProblem(folder, 'is locked by another process', 'End what holds the lock (lslocks shows it), or set HANDOVER_DIR to another directory.')
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, lockLookMs)
  }
}

/** A descriptor that listens at `file`. The file is created atomically, and replaces any existing one. */
export function listenAt(file: string): number {
  try {
    unlinkSync(temporary(file))
  } catch { /* the usual case: there is none */ }
  const fd = check(addon().listenUnix(temporary(file), 128), `bind ${temporary(file)}`)
  try {
    renameSync(temporary(file), file)
  } catch (error) {
    unlinkSync(temporary(file))
    closeSync(fd)
    throw error
  }
  return fd
}

/** Listening sockets with a path in this network namespace: where each was bound, and its inode. Linux; elsewhere empty. proc(5) */
function listeningSockets(): { readonly file: string; readonly inode: string }[] {
  let table: string
  try {
    table = readFileSync('/proc/net/unix', 'utf8')
  } catch {
    return []
  }
  return table.split('\n').flatMap((line) => {
    const [, , , flags, , , inode, ...rest] = line.trim().split(/ +/)
    return flags === listens && inode !== undefined && rest.length > 0 ? [{ file: rest.join(' '), inode }] : []
  })
}

/**
 * A process of this user that still listens for the name although its path is gone: a pid. It makes its path again within moments,
 * unless it hangs. Linux, in the same network and pid namespace; elsewhere undefined.
 */
export function hiddenHolder(name: string): number | undefined {
  const files = places().folders.map((folder) => path.join(folder, `${name}.sock`))
  const bound = new Set(files.flatMap((file) => [file, temporary(file)]))
  for (const { file, inode } of listeningSockets()) {
    // A socket of another user may have had the same path: only a process of this user counts.
    const pid = bound.has(file) ? holderOf(inode) : undefined
    if (pid !== undefined) return pid
  }
  return undefined
}

/**
 * For a person who finds no app where HANDOVER_DIR is not set: where else there are sockets that this user may ask, of a process with
 * another environment; and one in a directory that is not seen from here. The rest of a sentence; empty where there is nothing to say.
 */
export function placesElsewhere(): string {
  const { folders, given } = places()
  if (given) return ''
  const ending = temporary('.sock')
  const bound = listeningSockets().filter(({ file }) => file.endsWith(ending)).map(({ file }) => file.slice(0, -temporary('').length))
  const isKnown = (file: string): boolean => folders.includes(path.dirname(file))
  const isOurs = (folder: string): boolean => isUsable(folder, userId() === 0)
  const others = bound.filter((file) => !isKnown(file)).map((file) => path.dirname(file)).filter(isOurs)
  const [unseen] = bound.filter((file) => isKnown(file) && !existsSync(file))
  const elsewhere = [...new Set([...placesOfOthers(folders), ...others])]
  const found = `; there are sockets in ${elsewhere.slice(0, mostNamed).join(', ')}: set HANDOVER_DIR to that to ask there`
  const hidden = `; a process listens at ${unseen}, which is not seen from here: it may have a /tmp of its own (PrivateTmp= of systemd). Set HANDOVER_DIR for both`
  return `${elsewhere.length > 0 ? found : ''}${unseen === undefined ? '' : hidden}`
}

function holderOf(inode: string): number | undefined {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).map(Number)
  return pids.find((pid) => statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid === userId() && socketsOf(pid).includes(inode))
}

/**
 * Throws HANDOVER_PEER_UID where the process at the other end belongs neither to this user nor to root (SO_PEERCRED). `owner`: of the
 * directory, whose processes root may ask; in its own directory it may ask those that gave root up.
 */
export function checkPeer(fd: number, who: string, owner?: number): void {
  const peer = addon().peerCredentials(fd)
  const mine = userId()
  if (typeof peer === 'number') throw systemError(peer, 'getsockopt')
  if (peer.uid !== mine && peer.uid !== 0 && !(mine === 0 && (peer.uid === owner || owner === 0))) {
    throw new HandoverError('HANDOVER_PEER_UID', {
      what: `the ${who} (process ${peer.pid}) has uid ${peer.uid}, expected ${mine} or 0`,
      serving: 'Nothing was taken over', todo: 'Run both as the same user'
    })
  }
}
