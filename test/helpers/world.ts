/** test/programs/world.mjs: says in what world it runs (its binary, directory, version, environment, descriptors), in each generation. */

import { copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Folder } from './plan.js'
import { Program, type ProgramOptions, programPath } from './program.js'

export const root = fileURLToPath(new URL('../..', import.meta.url))
export const world = (options: ProgramOptions = {}): Program => Program.start(programPath('world.mjs'), options)

export interface World {
  pid: number; port: number; version?: string; execPath: string; cwd: string; marked: string[]
  child: [string | null, number]; fromFile?: string
}
export const listening = async (program: Program, generation = 1): Promise<World> => await program.event('listening', (event) => event.generation === generation) as unknown as World

/** A folder with the program and a version, whose packages are those of the workspace. */
export function release(folder: Folder, name: string): string {
  const at = folder.at(name)
  mkdirSync(at, { recursive: true })
  copyFileSync(programPath('world.mjs'), path.join(at, 'app.mjs'))
  writeFileSync(path.join(at, 'version.txt'), name)
  if (!existsSync(folder.at('node_modules'))) symlinkSync(path.join(root, 'node_modules'), folder.at('node_modules'))
  return at
}
