/**
 * How this process was started, by the links that were followed: `current`, not the release that it led to then. A deploy moves such a link
 * and removes the old release. So the paths are learnt at the start, as they were typed, and followed anew for each new process.
 */

import { accessSync, constants, lstatSync, readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import type sea from 'node:sea'
import { HandoverError } from '../errors.js'
import { builtFile } from './native-binary.js'
import { hiddenWords, pathsMark, withoutHidden } from './path-guard.js'
import { wordsOf } from './processes.js'

/** What a person would type to start this program again, so that symlinks that have moved are followed anew. */
export interface CommandLine {
  readonly file: string
  readonly args: readonly string[]
  readonly cwd: string
  /** How many of `args` are options of Node; absent: unknown. */
  readonly nodeOptions?: number
  /** What the program is called; absent: as this process. */
  readonly argv0?: string
}

export interface StartingPoint {
  /** The working directory as it was typed. */
  readonly cwd: string
  /** The same at the start, without links. */
  readonly physical: string
  /** Where to look for the Node binary, the best place first. */
  readonly nodes: readonly string[]
  /** How the working directory was guessed, where PWD did not say it. */
  readonly note?: string
}

/** The search for links: how many ancestors of the working directory, how far above each, and among how many names. */
const ancestorsLookedFor = 3
const levelsAbove = 2
const namesLookedAt = 1_000

function real(file: string): string | undefined {
  try {
    return realpathSync(file)
  } catch {
    return undefined
  }
}

/** Both are there, and are one file. */
function isSame(one: string, other: string): boolean {
  const found = real(one)
  return found !== undefined && found === real(other)
}

/** The permission model of Node keeps this process from looking. It may be there, and a start of it shows whether it is. */
const mayNotLook = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ERR_ACCESS_DENIED'

export function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch (error) {
    return mayNotLook(error)
  }
}

/** Without the right to look at it, it may be there. */
export function isDirectory(file: string): boolean {
  try {
    return statSync(file).isDirectory()
  } catch (error) {
    return mayNotLook(error) || (error as NodeJS.ErrnoException).code === 'EACCES'
  }
}

const isInside = (file: string, folder: string): boolean => file === folder || file.startsWith(folder.endsWith('/') ? folder : `${folder}/`)

/** The words that this process was started with, or undefined (not Linux, or process.title, which takes their place, was set before). */
function wordsOfStart(): string[] | undefined {
  const words = wordsOf('self').slice(0, -1)
  return words[0] === process.argv0 && (words.length === 1 || words.some((word, at) => at > 0 && word !== '')) ? words : undefined
}

/** The words of the command line as they were typed, or undefined (as above, or process.argv was changed). */
function typedArguments(): string[] | undefined {
  const words = wordsOfStart()
  return words?.length === 1 + hiddenWords() + process.execArgv.length + process.argv.length - 1 ? words : undefined
}

/** Call it at the start of the process: the links still lead to what runs now. */
export function startingPoint(): StartingPoint {
  const logical = process.env['PWD']
  let physical: string
  try {
    physical = process.cwd()
  } catch {
    physical = logical ?? '/' // it was removed
  }
  const said = logical !== undefined && path.isAbsolute(logical) && isSame(logical, physical) ? logical : undefined
  const guessed = said === undefined ? (byOtherWords(physical) ?? byLinks(physical)) : undefined
  const cwd = said ?? guessed ?? physical
  const place = { cwd, physical }

  // process.execPath is where the binary is, not the link through which it was found.
  const searched = process.argv0.includes('/')
    ? [path.resolve(cwd, process.argv0)]
    : (process.env['PATH'] ?? '').split(path.delimiter)
      .filter((folder) => path.isAbsolute(folder))
      .map((folder) => path.join(folder, process.argv0))
      .filter(isExecutable)
      .slice(0, 1)
  const found = searched.filter((candidate) => isSame(candidate, process.execPath))
  const nodes = [...new Set([...found.flatMap((file) => throughLink(place, file) ?? []), ...found, process.execPath])]
  return {
    ...place,
    nodes,
    ...(guessed !== undefined && { note: `PWD does not say how the working directory was reached: ${physical} is taken for ${guessed}, which leads to it now. If that is not meant, set PWD=${physical}` })
  }
}

/** Other words of the command line, or of the environment, that lead to the working directory by a link. */
function byOtherWords(physical: string): string | undefined {
  const hints = ['INIT_CWD', 'npm_config_local_prefix', 'npm_package_json', '_'].map((name) => process.env[name] ?? '')
  const words = [...(typedArguments() ?? [process.argv0, ...process.argv.slice(1)]), ...hints]
  for (const word of words) {
    if (!path.isAbsolute(word)) continue
    for (let folder = path.normalize(word); folder !== path.dirname(folder); folder = path.dirname(folder)) {
      const where = real(folder)
      if (where === undefined || where === folder || !isInside(physical, where)) continue
      return path.join(folder, path.relative(where, physical))
    }
  }
  return undefined
}

/** The only link near by that leads to the working directory or a folder above it. With several, it is unknown which was meant. */
function byLinks(physical: string): string | undefined {
  let folder = physical
  for (let up = 0; up < ancestorsLookedFor; up++, folder = path.dirname(folder)) {
    if (path.dirname(path.dirname(folder)) === path.dirname(folder)) break
    const found: string[] = []
    let above = folder
    for (let level = 0; level < levelsAbove; level++) {
      above = path.dirname(above)
      try {
        for (const entry of readdirSync(above, { withFileTypes: true }).slice(0, namesLookedAt)) {
          const file = entry.isSymbolicLink() ? path.join(above, entry.name) : undefined
          if (file !== undefined && real(file) === folder) found.push(file)
        }
      } catch { /* it may not be read */ }
    }
    if (found.length > 0) return found.length === 1 ? path.join(found[0]!, path.relative(folder, physical)) : undefined
  }
  return undefined
}

/** The same file through the link to the working directory; undefined where the file is not below it, or there is no link. */
export function throughLink({ cwd, physical }: Pick<StartingPoint, 'cwd' | 'physical'>, file: string): string | undefined {
  let [from, to] = [physical, cwd]
  while (from !== to && path.basename(from) === path.basename(to)) [from, to] = [path.dirname(from), path.dirname(to)]
  return from !== to && isInside(file, from) ? path.join(to, path.relative(from, file)) : undefined
}

/** Follows a link in the last place; the links above it stay. */
export function followLast(file: string): string {
  let at = file
  for (let steps = 0; steps < 40; steps++) {
    if (!lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink()) return at
    at = path.resolve(path.dirname(at), readlinkSync(at))
  }
  return at
}

/** The script as it was typed; a relative path goes through the working directory as that was typed. Undefined: there is none. */
export function typedScript({ cwd, physical }: Pick<StartingPoint, 'cwd' | 'physical'>): string | undefined {
  // process.argv[1] is absolute through the physical directory, even where a relative path was typed.
  const [, script] = process.argv
  if (script === undefined) return undefined
  const typed = typedArguments()?.[1 + hiddenWords() + process.execArgv.length]
  const relative = path.relative(physical, script)
  const inside = !relative.startsWith('..') && !path.isAbsolute(relative)
  const typedRelative = typed === undefined ? inside : !path.isAbsolute(typed) && path.resolve(physical, typed) === script
  return typedRelative ? path.join(cwd, typed ?? relative) : script
}

/** A Node binary that can be started now, and a note if it is not the best. */
export function nodeNow({ nodes }: Pick<StartingPoint, 'nodes'>): { readonly file: string; readonly note?: string } {
  const file = nodes.find(isExecutable)
  if (file === nodes[0]) return { file: nodes[0]! }
  // The binary that runs, although it has no name any more. proc(5)
  const instead = file ?? (isExecutable('/proc/self/exe') ? '/proc/self/exe' : nodes[0]!)
  return { file: instead, note: `${nodes[0]} is gone: Node ${process.versions.node} is started from ${file ?? 'what runs now'}` }
}

/** Throws HANDOVER_SPAWN where the working directory is gone: whatever could still be started is not what was deployed. */
export function requireDirectory({ cwd }: Pick<StartingPoint, 'cwd'>): void {
  if (!isDirectory(cwd)) throw new HandoverError('HANDOVER_SPAWN', {
    what: `the working directory ${cwd} is gone: it was removed, or renamed, since process ${process.pid} was started there`
  })
}

/** Call it at the start of the process: the function that it returns says how to start the program again. `note` hears of differences. */
export function commandLine(note: (text: string) => void = () => undefined): () => CommandLine {
  const point = startingPoint()
  const words = wordsFor(point)
  return () => {
    requireDirectory(point)
    if (point.note !== undefined) note(point.note)
    const node = nodeNow(point)
    if (node.note !== undefined) note(node.note)
    return { file: node.file, ...words, cwd: point.cwd }
  }
}

function wordsFor(point: StartingPoint): Pick<CommandLine, 'args' | 'nodeOptions'> {
  const { argv, execArgv } = process
  const typed = typedArguments()
  const words = typed ? undefined : withoutHidden(wordsOfStart() ?? [])
  if (words && words.length > 0) {
    // The program has taken words out of process.argv (a command of its own, what loads another script), and expects them again.
    const areFirst = execArgv.every((option, at) => words[1 + at] === option)
    return { args: words.slice(1), ...(areFirst && { nodeOptions: execArgv.length }) }
  }
  // A single executable application has no script: its own path stands in that place. What it has as options is built in.
  if (!typed && (process.getBuiltinModule('node:sea') as typeof sea | undefined)?.isSea() === true) return { args: argv.slice(2) }
  const script = typedScript(point)
  return { args: [...execArgv, ...(script === undefined ? [] : [script, ...argv.slice(2)])], nodeOptions: execArgv.length }
}

/** A command and the environment that it is to be started with. */
export interface Launchable {
  readonly command: CommandLine
  readonly env: NodeJS.ProcessEnv
}

/**
 * With the guard of these served Unix paths, which is loaded before the program. It comes after the options of Node: where packages lie in
 * an archive, it is these options that make Node find it.
 */
export function guarded({ command, env }: Launchable, paths: readonly string[]): Launchable {
  if (paths.length === 0) return { command, env }
  const { args, nodeOptions = 0 } = command
  const guard = builtFile('guard.js')
  const words = guard === undefined ? [] : ['--require', guard]
  const guardedArgs = [...args.slice(0, nodeOptions), ...words, ...args.slice(nodeOptions)]
  return {
    command: { ...command, args: guardedArgs, nodeOptions: nodeOptions + words.length },
    env: { ...env, [pathsMark]: JSON.stringify(paths) }
  }
}
