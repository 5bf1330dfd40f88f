/**
 * V8's compiled form of this package, kept for the next process: to read and compile the text was half of the time of requiring it.
 * Not in the package's one file: it is a part of each entry, and loads that file (bundle.mjs).
 *
 * A process that has served for some seconds writes what it has compiled into the directory of its control socket, which belongs to this
 * user alone: the first process of a build, and once more the first that has taken over from another, since it has run more of the package.
 * The name of the file says for which build, Node and options it is, and V8 refuses what another V8 has made. Nothing is kept without such
 * a directory, under another module loader, in a bundled program, and where Node's own compile cache is switched off.
 */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { closeSync, constants, fstatSync, lstatSync, openSync, promises, readSync, statSync, type Stats } from 'node:fs'
import Module from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Script } from 'node:vm'
import { tooOld } from './node-version.js'

/** The start is over by then, and what the first requests need is compiled. */
const servedMs = 5_000
/** Each has some 900 KB. */
const mostKept = 6
const prefix = '.compiled-'

const userId = (): number | undefined => process.geteuid?.()
const isOwn = ({ uid, mode }: Stats): boolean => uid === userId() && (mode & 0o077) === 0

/** The first directory that is there and safe, of those that control-places.ts makes. */
function findFolder(): string | undefined {
  const { HANDOVER_DIR: given = '', XDG_RUNTIME_DIR: runtime = '' } = process.env
  const own = `handover-${userId() ?? ''}`
  const folders = given !== '' ? [given] : [
    ...(runtime === '' ? [] : [path.join(runtime, 'handover')]), ...(userId() === 0 ? ['/run/handover'] : []),
    path.join(tmpdir(), own), `/tmp/${own}`
  ]
  return folders.filter((folder) => path.isAbsolute(folder)).find((folder) => {
    const found = lstatSync(folder, { throwIfNoEntry: false })
    return found?.isDirectory() === true && isOwn(found)
  })
}

/** For the name of a file; not a secret. */
function hash(text: string): string {
  let value = 5381
  for (let at = 0; at < text.length; at++) value = (Math.imul(value, 33) ^ text.charCodeAt(at)) >>> 0
  return value.toString(36)
}

interface Resizable extends ArrayBuffer {
  resize(length: number): void
}
/** TypeScript has it from ES2024 on. */
const ResizableBuffer = ArrayBuffer as unknown as new (length: number, options: { readonly maxByteLength: number }) => Resizable

/**
 * Into memory that `giveBack` can return: a resizable ArrayBuffer has pages of its own. A plain one waits for V8's next collection, and
 * each large block that malloc frees lets glibc keep more for later: here 1.2 MB that nothing needs again.
 * https://man7.org/linux/man-pages/man3/mallopt.3.html (M_MMAP_THRESHOLD)
 */
function readWhole(fd: number, size: number): Buffer {
  const bytes = Buffer.from(new ResizableBuffer(size, { maxByteLength: size }))
  let length = 0
  for (let read = -1; read !== 0 && length < size; length += read) read = readSync(fd, bytes, length, size - length, null)
  return bytes.subarray(0, length)
}

const giveBack = ({ buffer }: Buffer): void => { (buffer as Resizable).resize(0) }

function readText(file: string): string {
  const fd = openSync(file, constants.O_RDONLY)
  try {
    const bytes = readWhole(fd, fstatSync(fd).size)
    const text = bytes.toString('latin1')
    giveBack(bytes)
    return text
  } finally {
    closeSync(fd)
  }
}

/** Undefined: there is none, it may be another user's, or it is damaged. */
function readOwn(file: string): Buffer | undefined {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch {
    return undefined
  }
  try {
    const found = fstatSync(fd)
    if (!found.isFile() || !isOwn(found)) return undefined
    const bytes = readWhole(fd, found.size)
    const half = bytes.length / 2
    return bytes.subarray(0, half).equals(bytes.subarray(half)) ? bytes.subarray(0, half) : undefined
  } finally {
    closeSync(fd)
  }
}

/** What a process had run that wrote the compiled form: a start, or also how to take over. The ends of the names of the files. */
type Extent = '' | '-successor'
const extents: readonly Extent[] = ['-successor', '']

/** Written twice, since V8 does not see damage and would crash: to compare two copies takes less time than a sum in JavaScript. */
async function write(folder: string, name: string, bytes: Buffer): Promise<void> {
  const { open, readdir, rename, rm, stat } = promises
  const fresh = path.join(folder, `${name}.${process.pid}`)
  const file = await open(fresh, 'w', 0o600)
  try {
    await file.writeFile(Buffer.concat([bytes, bytes]))
    await file.sync()
    await rename(fresh, path.join(folder, name))
  } catch (error) {
    await rm(fresh, { force: true })
    throw error
  } finally {
    await file.close()
  }
  const files = (await readdir(folder)).filter((each) => each.startsWith(prefix)).map((each) => path.join(folder, each))
  const kept = await Promise.all(files.map(async (file) => ({ file, at: (await stat(file)).mtimeMs })))
  await Promise.all(kept.sort((one, other) => other.at - one.at).slice(mostKept).map(({ file }) => rm(file, { force: true })))
}

/** Writes it when this process has served for a while; the first of several processes does. `used`: what it was loaded from. */
function keepWhenServed(script: Script, name: string, used: Extent | undefined, afterMs: number): void {
  const loadedAt = Date.now()
  let timer: NodeJS.Timeout | undefined
  const watch = (message: unknown): void => {
    clearTimeout(timer)
    const { to, generation } = message as { to?: unknown; generation?: number }
    const extent = generation === 1 ? '' : '-successor'
    if (to === 'serving' && extent !== used) timer = setTimeout(() => { keep(extent) }, afterMs).unref()
  }
  const keep = (extent: Extent): void => {
    unsubscribe('handover:state', watch)
    try {
      const folder = findFolder()
      const whole = `${name}${extent}`
      if (folder === undefined || (lstatSync(path.join(folder, whole), { throwIfNoEntry: false })?.mtimeMs ?? 0) > loadedAt) return
      write(folder, whole, script.createCachedData()).catch(() => undefined)
    } catch { /* A start without it takes longer, no more. */ }
  }
  subscribe('handover:state', watch)
}

/** Undefined where a loader of ES modules has given the entry a require of its own, or a bundler (rollup) has left it none. */
function cacheOfRequire(): NodeJS.Dict<NodeJS.Module> | undefined {
  try {
    return require.cache
  } catch {
    return undefined
  }
}

const cache = cacheOfRequire()

/** Loaded by Node itself: by no bundler, and no test runner with a world of its own. */
const isPlain = (entry: NodeJS.Module): boolean =>
  entry instanceof Module && cache?.[entry.filename] === entry && process.env['NODE_DISABLE_COMPILE_CACHE'] === undefined &&
  process.env['NODE_V8_COVERAGE'] === undefined

/**
 * The package's one file, beside this entry; its first line is `mark`. Undefined: require it as any other. `afterMs`: how long this process
 * must have served until what it has compiled is kept. Throws where the file could not run on this Node.
 */
export function loadCompiled(entry: NodeJS.Module, mark: string, afterMs = servedMs): unknown {
  const old = tooOld()
  if (old !== undefined) throw new Error(old)
  if (!isPlain(entry) || !cache) return undefined
  const file = path.join(path.dirname(entry.filename), 'core.js')
  const loaded = cache[file]
  if (loaded) return loaded.exports
  const script = compile(file, mark, afterMs)
  if (!script) return undefined
  const module = Object.assign(new Module(file), { filename: file })
  cache[file] = module
  try {
    const run = script.runInThisContext() as (exports: unknown, folder: string) => void
    run(module.exports, path.dirname(file))
  } catch (error) {
    Reflect.deleteProperty(cache, file)
    throw error
  }
  module.loaded = true
  return module.exports
}

function findKept(name: string): { readonly extent: Extent; readonly cachedData: Buffer } | undefined {
  const folder = findFolder()
  if (folder === undefined) return undefined
  for (const extent of extents) {
    const cachedData = readOwn(path.join(folder, `${name}${extent}`))
    if (cachedData) return { extent, cachedData }
  }
  return undefined
}

/** `file` is one expression, a function: in the wrapper of a module V8 would hold a copy of its text. */
function compile(file: string, mark: string, afterMs: number): Script | undefined {
  try {
    const text = readText(file)
    if (!text.startsWith(mark) || userId() === undefined) return undefined
    const options = hash(`${process.env['NODE_OPTIONS'] ?? ''} ${process.execArgv.join(' ')} ${statSync(file).mtimeMs}`)
    const name = `${prefix}${hash(mark)}-${process.version}-${process.arch}-${options}`
    const { extent, cachedData } = findKept(name) ?? {}
    const script = new Script(text, { filename: file, ...(cachedData && { cachedData }) })
    if (cachedData) giveBack(cachedData)
    const used = script.cachedDataRejected === false ? extent : undefined
    if (used !== '-successor') keepWhenServed(script, name, used, afterMs)
    return script
  } catch {
    return undefined
  }
}
