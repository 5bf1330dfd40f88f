/**
 * The compiled form of the package. Whether it was used can be seen, since V8 compares no more of the text than its length: what was
 * compiled before answers "first", and the text that stands there now "other".
 */

import { channel } from 'node:diagnostics_channel'
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import Module, { createRequire } from 'node:module'
import path from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { loadCompiled } from '../../../helpers/internals.js'
import { Folder } from '../../../helpers/plan.js'

const { cache } = createRequire(import.meta.url)
const mark = '/*! core, this build */'
let folder: Folder

beforeEach(() => {
  folder = new Folder()
  chmodSync(folder.path, 0o700)
  vi.stubEnv('HANDOVER_DIR', folder.path)
  vi.stubEnv('NODE_V8_COVERAGE', undefined)
})

afterEach(async () => {
  // Those that have not served.
  vi.stubEnv('HANDOVER_DIR', folder.at('none'))
  channel('handover:state').publish({ from: 'idle', to: 'serving', generation: 1 })
  await new Promise((resolve) => setTimeout(resolve, 5))
  vi.unstubAllEnvs()
  folder[Symbol.dispose]()
})

const compiled = (): string[] => readdirSync(folder.path).filter((name) => name.startsWith('.compiled-'))
const kept = (): string => path.join(folder.path, compiled()[0] ?? 'none')

/** As a process that starts: what the file answers, which says `answer` now and was changed then. */
function load(answer: 'first' | 'other', changed = 1_000): unknown {
  const [core, filename] = [folder.at('core.js'), folder.at('index.js')]
  writeFileSync(core, `${mark}\n((exports, folder) => { exports.answer = ${JSON.stringify(answer)}; exports.folder = folder })\n`)
  utimesSync(core, changed, changed)
  const entry = Object.assign(new Module(filename), { filename })
  cache[filename] = entry
  Reflect.deleteProperty(cache, core)
  return (loadCompiled(entry, mark, 0) as { answer: string } | undefined)?.answer
}

async function serve(): Promise<void> {
  channel('handover:state').publish({ from: 'idle', to: 'serving', generation: 1 })
  await vi.waitFor(() => { expect(compiled()).toEqual([expect.stringMatching(/^\.compiled-[^.]+-v[\d.]+-\w+-\w+$/)]) })
}

it('is written when a process serves, for this user alone, and the next process uses it', async () => {
  expect(load('first')).toBe('first')
  await serve()
  expect(statSync(kept()).mode & 0o777).toBe(0o600)
  expect(load('other')).toBe('first')
})

it('is written once more by the first process that has taken over, and processes use what that one wrote', async () => {
  load('first')
  await serve()
  load('first')
  const started = statSync(kept()).mtimeMs
  channel('handover:state').publish({ from: 'ready', to: 'serving', generation: 2 })
  await vi.waitFor(() => { expect(compiled()).toEqual([path.basename(kept()), `${path.basename(kept())}-successor`]) })
  writeFileSync(kept(), 'damaged')
  expect(load('other')).toBe('first')
  const written = statSync(`${kept()}-successor`).mtimeMs
  await new Promise((resolve) => setTimeout(resolve, 5))
  channel('handover:state').publish({ from: 'ready', to: 'serving', generation: 3 })
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect([statSync(`${kept()}-successor`).mtimeMs, started <= written]).toEqual([written, true])
})

it('is not written again by another first process', async () => {
  load('first')
  await serve()
  utimesSync(kept(), 1_000, 1_000)
  load('other')
  channel('handover:state').publish({ from: 'idle', to: 'serving', generation: 1 })
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(statSync(kept()).mtimeMs).toBe(1_000_000)
  expect(compiled()).toHaveLength(1)
})

it('loads the package as require does: by its path, once', async () => {
  load('first')
  const { exports } = cache[folder.at('core.js')] as { exports: unknown }
  expect(exports).toEqual({ answer: 'first', folder: folder.path })
  const filename = folder.at('index.js')
  expect(loadCompiled(cache[filename]!, mark)).toBe(exports)
})

it('is not used when the file of the package was changed, and is written anew', async () => {
  load('first')
  await serve()
  expect(load('other', 2_000)).toBe('other')
})

it.each<[string, () => void]>([
  ['is damaged', () => { const bytes = readFileSync(kept()); bytes[bytes.length >> 2]! ^= 1; writeFileSync(kept(), bytes) }],
  ['is cut off', () => { const bytes = readFileSync(kept()); writeFileSync(kept(), bytes.subarray(0, bytes.length / 2)) }],
  ['is empty', () => { writeFileSync(kept(), '') }],
  ['may be written by others', () => { chmodSync(kept(), 0o660) }],
  ['lies in a directory that others may enter', () => { chmodSync(folder.path, 0o755) }],
  ['is switched off by NODE_DISABLE_COMPILE_CACHE', () => { vi.stubEnv('NODE_DISABLE_COMPILE_CACHE', '1') }],
  ['is for other options of V8', () => { vi.stubEnv('NODE_OPTIONS', '--stack-size=900') }]
])('is not used where it %s', async (_, change) => {
  load('first')
  await serve()
  change()
  expect(load('other')).toSatisfy((answer) => answer === 'other' || answer === undefined)
})

it('is replaced where it was damaged', async () => {
  load('first')
  await serve()
  writeFileSync(kept(), 'damaged')
  utimesSync(kept(), 1_000, 1_000)
  load('first')
  await serve()
  await vi.waitFor(() => { expect(statSync(kept()).size).toBeGreaterThan(100) })
  expect(load('other')).toBe('first')
})

it('is left to require where a bundler or another loader has made the entry, and where the file is of another build', () => {
  load('first')
  const filename = folder.at('index.js')
  expect(loadCompiled({ exports: {} } as NodeJS.Module, mark)).toBeUndefined()
  Reflect.deleteProperty(cache, folder.at('core.js'))
  expect(loadCompiled(cache[filename]!, '/*! core, another build */')).toBeUndefined()
  Reflect.deleteProperty(cache, filename)
  expect(existsSync(folder.at('core.js'))).toBe(true)
})

it('keeps no more than six', async () => {
  for (let count = 0; count < 9; count++) {
    writeFileSync(folder.at(`.compiled-old-${count}`), '')
    utimesSync(folder.at(`.compiled-old-${count}`), count + 1, count + 1)
  }
  load('first')
  channel('handover:state').publish({ from: 'idle', to: 'serving', generation: 1 })
  await vi.waitFor(() => { expect(compiled()).toHaveLength(6) })
  expect(compiled().slice(0, 5)).toEqual([4, 5, 6, 7, 8].map((count) => `.compiled-old-${count}`))
})
