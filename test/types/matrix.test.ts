/**
 * The types under TypeScript 5.0 and the newest 6, for each way to resolve modules; and every exported name, and each of its members, has a
 * docstring.
 */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type ts from 'typescript'
import { afterAll, describe, expect, test } from 'vitest'
import { root } from '../helpers/world.js'

const require = createRequire(import.meta.url)
const packages = path.join(root, 'packages')

// In a folder of its own: beside the newest, npm could link `tsc` to this one.
const folder = mkdtempSync(path.join(tmpdir(), 'handover-types-'))
execFileSync('npm', ['install', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error', 'typescript@~5.0.4'], { stdio: 'ignore' })
afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

/** Options as tsconfig.json has them. */
function compile(compiler: typeof ts, file: string, options: object): ts.Program {
  const common = { target: 'es2022', strict: true, noEmit: true, esModuleInterop: true, types: ['node'], skipLibCheck: false }
  const { options: parsed, errors } = compiler.convertCompilerOptionsFromJson({ ...common, ...options }, import.meta.dirname)
  expect(errors).toEqual([])
  return compiler.createProgram([path.join(import.meta.dirname, file)], parsed)
}

/** Of the program, and of what it imports from our packages. */
function problems(compiler: typeof ts, program: ts.Program): string[] {
  const ours = program.getSourceFiles().filter(({ fileName }) => !fileName.includes('/node_modules/'))
  const found = [...program.getOptionsDiagnostics(), ...ours.flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)])]
  expect(ours.filter(({ fileName }) => fileName.startsWith(packages)).length).toBeGreaterThan(0)
  return found.map(({ file, messageText }) => `${path.relative(root, file?.fileName ?? '')}: ${compiler.flattenDiagnosticMessageText(messageText, '\n')}`)
}

describe.each([['TypeScript 5.0', path.join(folder, 'node_modules/typescript')], ['the newest', 'typescript']])('%s', (_name, found) => {
  const compiler = require(found) as typeof ts
  const isOld = compiler.version.startsWith('5.')

  test.each<[string, object]>([
    ['node10', { module: 'commonjs', moduleResolution: 'node10', ...(!isOld && { ignoreDeprecations: '6.0' }) }],
    // With the newest: types.test.ts.
    ...(isOld ? [['node16', { module: 'node16', moduleResolution: 'node16' }] satisfies [string, object]] : []),
    ['bundler', { module: 'es2022', moduleResolution: 'bundler' }]
  ])('finds the types by %s, and takes them', (_name, options) => {
    expect(problems(compiler, compile(compiler, 'matrix.ts', options))).toEqual([])
  })

  test.runIf(isOld)('finds the types of the load client', () => {
    expect(problems(compiler, compile(compiler, 'load.mts', { module: 'node16', moduleResolution: 'node16' }))).toEqual([])
  })
})

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
})
