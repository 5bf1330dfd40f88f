/**
 * The types under TypeScript 5.0 to 6, for each way to resolve modules (tstyche compiles *.tst.*); and every exported name, and each of its
 * members, has a docstring. `npm run types:all` tries each way with each version.
 */

import { execFile } from 'node:child_process'
import { createRequire } from 'node:module'
import path from 'node:path'
import { promisify } from 'node:util'
import type ts from 'typescript'
import { expect, test } from 'vitest'
import { root } from '../helpers/world.js'

const require = createRequire(import.meta.url)
const packages = path.join(root, 'packages')

const run = promisify(execFile)

const versions = ['5.0', '5.4', '5.9', '6.0']
// All programs under the oldest and the newest; in between and for the other resolutions one that imports everything.
const runs: [resolution: string, versions: string[], files: string[]][] = process.env['HANDOVER_TEST_TYPES'] === 'all'
  ? ['node16', 'node10', 'bundler'].map((resolution) => [resolution, versions, resolution === 'node16' ? [] : ['matrix']])
  : [['node16', ['5.0', '6.0'], []], ['node16', ['5.4', '5.9'], ['matrix']], ['node10', ['5.0'], ['matrix']], ['bundler', ['6.0'], ['matrix']]]

test.each(runs)('the types hold by %s with TypeScript %s, those of programs and our declarations', async (resolution, versions, files) => {
  const config = `test/types/tsconfig${resolution === 'node16' ? '' : `.${resolution}`}.json`
  const words = [...files, '--config', 'test/types/tstyche.json', '--tsconfig', config, '--target', versions.join(' || ')]
  // The last tstyche that knows TypeScript 5.0 and runs on Node 20. It fetches each version once.
  const { stdout } = await run(process.execPath, ['node_modules/tstyche/build/bin.js', ...words], { cwd: root, env: { ...process.env, NO_COLOR: '1' } })
    .catch((error: { stdout: string; stderr: string }) => { throw new Error(`${error.stdout}${error.stderr}`) })
  for (const version of versions) expect(stdout).toMatch(new RegExp(`^uses TypeScript ${version}\\.\\d+ with \\./${config}$`, 'm'))
  expect(stdout).toMatch(new RegExp(`^Targets: +${versions.length} passed, ${versions.length} total$`, 'm'))
}, 1_200_000)

test('every exported name and each of its members has a docstring', () => {
  const compiler = require('typescript') as typeof ts
  const entries = ['core/dist/index.d.ts', 'core/dist/fd/index.d.ts', 'core/dist/websocket/index.d.ts', ...['express', 'fastify', 'prom-client', 'load'].map((name) => `${name}/dist/index.d.ts`)]
  const files = entries.map((entry) => path.join(packages, entry))
  const program = compiler.createProgram(files, { module: compiler.ModuleKind.NodeNext, target: compiler.ScriptTarget.ES2023, types: ['node'] })
  const checker = program.getTypeChecker()
  const isOurs = (symbol: ts.Symbol): boolean => symbol.declarations?.some((declaration) => declaration.getSourceFile().fileName.startsWith(packages)) === true
  const text = (symbol: ts.Symbol): string => compiler.displayPartsToString(symbol.getDocumentationComment(checker))
  const undocumented: string[] = []
  const timesWithoutUnit: string[] = []
  for (const [index, file] of files.entries()) {
    const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!)
    expect(exported.length).toBeGreaterThan(0)
    for (const each of exported) {
      const symbol = each.flags & compiler.SymbolFlags.Alias ? checker.getAliasedSymbol(each) : each
      if (!isOurs(symbol)) continue
      if (text(symbol) === '') undocumented.push(`${entries[index]}: ${each.name}`)
      if (!(symbol.flags & (compiler.SymbolFlags.Interface | compiler.SymbolFlags.Class))) continue
      for (const member of symbol.members?.values() ?? []) {
        if (member.flags & compiler.SymbolFlags.TypeParameter || member.name.startsWith('__')) continue
        if (text(member) === '') undocumented.push(`${entries[index]}: ${each.name}.${member.name}`)
        // What ends in Ms says its unit.
        if (/(?:[tT]imeout|[wW]indow|linger|uptime|checkpoint)$/.test(member.name) && !/millisecond/.test(text(member))) timesWithoutUnit.push(`${each.name}.${member.name}`)
      }
    }
  }
  expect(undocumented).toEqual([])
  expect(timesWithoutUnit).toEqual([])
}, 600_000)
