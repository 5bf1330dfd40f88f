/**
 * A program in one file that a bundler made, with the packages of Handover in it: it finds the addon beside itself or in a node_modules
 * above, or says that bundling is the reason and what to do.
 */

import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { runInThisContext } from 'node:vm'
import { buildSync } from 'esbuild'
import { describe, expect, test } from 'vitest'
import { ask } from '../../helpers/ask.js'
import { Folder } from '../../helpers/plan.js'
import { Program } from '../../helpers/program.js'

const host = '127.0.0.1'
const root = fileURLToPath(new URL('../../..', import.meta.url))
const addon = path.join(root, 'build', 'Release', 'handover.node')

const app = `
  import { createServer } from 'node:http'
  import { handover } from '@handover/core'
  const server = handover(createServer((request, response) => { response.end(String(handover.generation)) }), { undoWindow: 200, linger: 200 })
  server.listen(0, '${host}', () => { console.log(JSON.stringify({ event: 'listening', pid: process.pid, generation: handover.generation, port: server.address().port })) })`

/** As the documentation of esbuild gives it for ES modules with dependencies that are none. */
const banner = { js: `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);` }

function bundle(folder: Folder, format: 'cjs' | 'esm'): string {
  writeFileSync(folder.at('app.mjs'), app)
  const outfile = folder.at(`dist/server.${format === 'cjs' ? 'cjs' : 'mjs'}`)
  buildSync({ entryPoints: [folder.at('app.mjs')], outfile, bundle: true, platform: 'node', format, nodePaths: [path.join(root, 'node_modules')], logLevel: 'error', ...(format === 'esm' && { banner }) })
  return outfile
}

async function reloads(program: Program): Promise<void> {
  const { port, pid } = await program.event('listening') as unknown as { port: number; pid: number }
  process.kill(pid, 'SIGHUP')
  await program.event('listening', ({ generation }) => generation === 2)
  await program.stderrMatching(/generation 1 .* has ended/)
  expect(await ask('http', { port, host })).toBe(2)
  expect(program.stderr).not.toMatch(/warn:/)
}

describe.each(['cjs', 'esm'] as const)('a bundle of the format %s', (format) => {
  test('with the addon beside it is reloaded', async () => {
    using folder = new Folder()
    const file = bundle(folder, format)
    copyFileSync(addon, folder.at('dist/handover.node'))
    await using program = Program.start(file)
    await reloads(program)
  })

  test('with the package in a node_modules above it is reloaded', async () => {
    using folder = new Folder()
    const file = bundle(folder, format)
    mkdirSync(folder.at('node_modules/@handover'), { recursive: true })
    symlinkSync(path.join(root, 'packages', 'core'), folder.at('node_modules/@handover/core'))
    await using program = Program.start(file)
    await reloads(program)
  })

  test('without either says that bundling is the reason and what to do, listens, and stops without another word of what it cannot do', async () => {
    using folder = new Folder()
    await using program = Program.start(bundle(folder, format))
    const { port, pid } = await program.event('listening') as unknown as { port: number; pid: number }
    expect(await ask('http', { port, host })).toBe(1)
    expect(program.stderr).toContain(`this code was bundled (it runs from ${folder.at('dist')})`)
    expect(program.stderr).toContain('esbuild --external:@handover/*')
    expect(program.stderr).not.toMatch(/there is no binary/)
    process.kill(pid, 'SIGTERM')
    await program.stderrMatching(/has stopped/)
    expect(program.stderr.match(/warn:/g)).toHaveLength(1)
  })
})

const entry = path.join(root, 'packages/core/dist/bundle/index.js')

test('no string of the core is broken at the end of a line: rollup would put its indentation into it', () => {
  expect(readFileSync(path.join(path.dirname(entry), 'core.js'), 'utf8')).not.toMatch(/\\\n/)
})

test('an entry loads where there is no require, as in an ES module that rollup made', () => {
  const load = runInThisContext(`(module, exports, given) => { ${readFileSync(entry, 'utf8').replace(/\brequire\(/g, 'given(')} }`) as (...args: unknown[]) => void
  const made = { exports: {} as { handover?: unknown } }
  load(made, made.exports, createRequire(entry))
  expect(typeof made.exports.handover).toBe('function')
})

test('a program of ES modules does not look for names in all of the core: its entries re-export nothing that Node could follow', () => {
  const names = `import(process.argv[1]).then((entry) => { console.log(Object.keys(entry).includes('internal')) })`
  expect(execFileSync(process.execPath, ['-e', names, entry], { encoding: 'utf8' })).toBe('false\n')
})
