/**
 * The directories ("places") for the control sockets of this user: HANDOVER_DIR alone, where it is given; otherwise several.
 *
 * A process that serves takes the first directory that it can use. A command looks in all of them. So another user cannot hide an app by
 * creating a directory whose name can be guessed, and a login and a cron job find the same apps.
 * A directory must be a real one of this user with mode 0700: no other user may put a socket there, or take one away.
 */

import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { HandoverError, withoutStop } from '../errors.js'

/** What the choice of directories depends on. */
export interface World {
  readonly env: NodeJS.ProcessEnv
  readonly uid: number
  /** The temporary directory. */
  readonly temporary: string
  readonly exists: (folder: string) => boolean
  /** The uid of the owner of a directory; undefined where it is not seen. */
  readonly ownerOf: (folder: string) => number | undefined
  /** The names in a directory; none where it cannot be read. */
  readonly list: (folder: string) => readonly string[]
}

export interface Places {
  /** The best one first. */
  readonly folders: readonly string[]
  /** HANDOVER_DIR: no other directory will do. */
  readonly given: boolean
}

/** Why a directory, or the path of a socket in it, cannot be used. */
export class PlaceProblem extends Error {
  readonly todo: string

  constructor(folder: string, what: string, todo: string) {
    super(`${folder} ${what}`)
    this.todo = todo
  }
}

/** sun_path, unix(7), less the end of a temporary name. */
const maxPathBytes = (process.platform === 'linux' ? 107 : 103) - '.new'.length

const prefix = (uid: number): string => `handover-${uid}`
const anotherDirectory = 'Set HANDOVER_DIR to a directory of this user.'

/** Throws HANDOVER_CONTROL_SOCKET for a relative HANDOVER_DIR. */
export function placesIn({ env, uid, temporary, exists, ownerOf, list }: World): Places {
  const given = env['HANDOVER_DIR'] ?? ''
  if (given !== '') {
    if (!path.isAbsolute(given)) {
      const what = `HANDOVER_DIR=${given} is a relative path, expected an absolute one`
      throw new HandoverError('HANDOVER_CONTROL_SOCKET', { what, serving: 'Two processes in different folders would not find each other' })
    }
    return { folders: [given], given: true }
  }
  const runtime = env['XDG_RUNTIME_DIR'] ?? ''
  const runtimes = path.isAbsolute(runtime) ? [path.join(runtime, 'handover')] : []
  // With sudo -E or su it is that of the user before, who would find no room there, and takes all of it along at the end of the login.
  const isOfAnother = runtimes.length > 0 && ![undefined, 0, uid].includes(ownerOf(runtime))
  const login = `/run/user/${uid}`
  const shared = [...new Set([temporary, '/tmp'])]
  const folders = [
    ...(isOfAnother ? [] : runtimes),
    ...(uid === 0 ? ['/run/handover'] : []),
    ...shared.map((folder) => path.join(folder, prefix(uid))),
    ...(exists(login) ? [path.join(login, 'handover')] : []),
    ...runtimes,
    // Made where none of the others could be used, see candidates().
    ...shared.flatMap((folder) =>
      list(folder).filter((name) => name.startsWith(`${prefix(uid)}-`)).sort().map((name) => path.join(folder, name)))
  ]
  return { folders: [...new Set(folders)], given: false }
}

export function places(): Places {
  return placesIn({ env: process.env, uid: userId(), temporary: tmpdir(), exists: existsSync, ownerOf, list })
}

/** The effective user id. It changes when the process gives up root. */
export const userId = (): number => process.geteuid?.() ?? 0

function ownerOf(folder: string): number | undefined {
  try {
    return statSync(folder).uid
  } catch {
    return undefined
  }
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

/** Throws a PlaceProblem. `mayAsk`: this user may ask the processes of any owner. */
function checkPlace(folder: string, mayAsk = false): void {
  const found = lstatSync(folder)
  if (!found.isDirectory()) throw new PlaceProblem(folder, 'is not a directory', anotherDirectory)
  const mine = userId()
  if (found.uid !== mine && !mayAsk) throw new PlaceProblem(folder, `belongs to uid ${found.uid}, expected ${mine}`, anotherDirectory)
  if ((found.mode & 0o777) !== 0o700) throw new PlaceProblem(folder, `has mode 0${(found.mode & 0o7777).toString(8)}, expected 0700`, 'Give it that mode (chmod 700), or set HANDOVER_DIR to a directory of its own.')
}

/** As `checkPlace`. */
export function isUsable(folder: string, mayAsk = false): boolean {
  try {
    checkPlace(folder, mayAsk)
    return true
  } catch {
    return false
  }
}

/** As mkdir -p. Node's own never returns where nothing can be made, such as in /proc (nodejs/node#31481). */
function makeDirectory(folder: string): void {
  if (lstatSync(folder, { throwIfNoEntry: false })) return
  const above = path.dirname(folder)
  if (above !== folder) makeDirectory(above)
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    // Another process was faster.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** The path of the socket for a name in a directory, which is made where there is none. Throws a PlaceProblem. */
function fileIn(folder: string, name: string): string {
  const file = path.join(folder, `${name}.sock`)
  const bytes = Buffer.byteLength(file)
  if (bytes > maxPathBytes) throw new PlaceProblem(file, `is ${bytes} bytes long, expected at most ${maxPathBytes}`, 'Shorten the name or HANDOVER_DIR.')
  try {
    makeDirectory(folder)
  } catch (cause) {
    throw new PlaceProblem(folder, `cannot be made (${(cause as NodeJS.ErrnoException).code ?? ''})`, anotherDirectory)
  }
  checkPlace(folder)
  return file
}

/**
 * Calls `use` with the path for a name in one directory after the other, until it does not throw; `first` goes before the others. `use` is
 * told why a better directory is not used. Throws the error of the best directory, and a HandoverError of `use` at once.
 */
export function inFirstUsablePlace<T>(name: string, use: (file: string, insteadOf: string | undefined) => T, first?: string): T {
  let failure: Error | undefined
  for (const folder of candidates(first)) {
    try {
      return use(fileIn(folder, name), failure?.message)
    } catch (error) {
      if (error instanceof HandoverError) throw error
      // Read-only, or full.
      failure ??= error instanceof PlaceProblem ? error : new PlaceProblem(folder, `cannot be used: ${(error as Error).message}`, anotherDirectory)
    }
  }
  throw failure!
}

/** The last one is made, under a name that cannot be guessed, where none of the others can be used. */
function* candidates(first: string | undefined): Generator<string> {
  const { folders, given } = places()
  if (first !== undefined && !given) yield first
  for (const folder of folders) if (given || folder !== first) yield folder
  const unguessable = path.join(tmpdir(), `${prefix(userId())}-`)
  // If one of these can be used already, it is not for want of a directory that `use` failed.
  if (given || folders.some((folder) => folder.startsWith(unguessable) && isUsable(folder))) return
  let made: string
  try {
    made = mkdtempSync(unguessable)
  } catch {
    return
  }
  yield made
}

/** The paths where the socket of a name can be found. Throws HANDOVER_CONTROL_SOCKET for a relative HANDOVER_DIR. */
export function filesOf(name: string): readonly string[] {
  return places().folders.filter((folder) => isUsable(folder)).map((folder) => path.join(folder, `${name}.sock`))
}

/**
 * The directories in which a command looks for the sockets of processes: those that exist and can be used, and all of them as a text.
 * Creates nothing. Throws HANDOVER_CONTROL_SOCKET where HANDOVER_DIR is given and cannot be used.
 */
export function findPlaces(): { readonly folders: readonly string[]; readonly looked: string } {
  const nothing = (what: string, todo: string): HandoverError =>
    new HandoverError('HANDOVER_CONTROL_SOCKET', { what, serving: 'Nothing was asked', todo })
  let found: Places
  try {
    found = places()
  } catch (error) {
    throw error instanceof HandoverError ? nothing(withoutStop(error.message), 'Give the whole path.') : error
  }
  const { folders, given } = found
  const described: string[] = []
  const usable = folders.filter((folder) => {
    const bytes = Buffer.byteLength(folder)
    const most = maxPathBytes - '/x.sock'.length
    try {
      if (bytes > most) throw new PlaceProblem(folder, `is ${bytes} bytes long, expected at most ${most}`, 'No process can listen there. Shorten HANDOVER_DIR.')
      const exists = lstatSync(folder, { throwIfNoEntry: false }) !== undefined
      // Root may ask the processes of every user.
      if (exists) checkPlace(folder, given && userId() === 0)
      described.push(folder)
      return exists
    } catch (error) {
      const { message, todo } = error instanceof PlaceProblem ? error : { message: `${folder} cannot be used (${(error as NodeJS.ErrnoException).code ?? ''})`, todo: anotherDirectory }
      if (given) throw nothing(message, todo)
      described.push(message)
      return false
    }
  })
  return { folders: usable, looked: described.join(', ') }
}

/** For root: the directories of other users, where processes that gave root up may be. */
export function placesOfOthers(own: readonly string[]): readonly string[] {
  if (userId() !== 0) return []
  const shared = [...new Set([tmpdir(), '/tmp'])].flatMap((folder) =>
    list(folder).filter((name) => /^handover-\d+(-|$)/.test(name)).map((name) => path.join(folder, name)))
  const logins = list('/run/user').map((uid) => path.join('/run/user', uid, 'handover'))
  return [...shared, ...logins].filter((folder) => !own.includes(folder) && list(folder).some((name) => name.endsWith('.sock')))
}

/**
 * Where a keeper looks for its workers: also in directories that other users can enter, since the user of each process there is checked.
 */
export function placesOfWorkers(): readonly string[] {
  return places().folders.filter((folder) => {
    try {
      const found = lstatSync(folder)
      return found.isDirectory() && found.uid === userId()
    } catch {
      return false
    }
  })
}
