/**
 * What stands in README.md, docs/ and PROTOCOL.md is what the code does, and their links lead somewhere.
 */

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { errorTable } from '@handover/core'
import { Linter } from 'eslint'
import { expect, test } from 'vitest'
import { helpOf, keeperShapes, moves, SettingsOfProcess, shapes, slotMoves, variableOf, workerShapes } from '../helpers/internals.js'

const read = (file: string): string => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8')

const markdown = (folder: string): string[] => {
  const url = new URL(`../../${folder}`, import.meta.url)
  return statSync(url).isDirectory() ? readdirSync(url).filter((name) => name.endsWith('.md')).map((name) => `${folder}/${name}`) : []
}

/** The rows of the Markdown table whose header begins with these cells. */
function table(text: string, ...header: string[]): string[][] {
  const lines = text.split('\n')
  const cells = (line: string): string[] => line.split('|').slice(1, -1).map((cell) => cell.trim())
  const at = lines.findIndex((line) => line.startsWith('|') && header.every((cell, index) => cells(line)[index] === cell))
  expect(at, `a table with the columns ${header.join(', ')}`).toBeGreaterThanOrEqual(0)
  const rows: string[][] = []
  for (let index = at + 2; lines[index]?.startsWith('|'); index++) rows.push(cells(lines[index] ?? ''))
  return rows
}

const pages = ['README.md', ...['docs', ...readdirSync(new URL('../../packages', import.meta.url)).map((name) => `packages/${name}`)].flatMap((folder) => markdown(folder))]

const words = (cell = ''): string[] => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? '')

test('the table of docs/errors.md is the table in the code', () => {
  const rows = table(read('docs/errors.md'), 'code', 'what happened', 'what to do')
  expect(Object.fromEntries(rows.map(([code, what, todo]) => [words(code)[0], [what, todo]]))).toEqual(errorTable)
})

test('the table of states in PROTOCOL.md is the table in the code', () => {
  const rows = table(read('packages/core/PROTOCOL.md'), 'state', 'may become')
  expect(Object.fromEntries(rows.map(([state, next]) => [words(state)[0], words(next)]))).toEqual(moves)
})

test('the table of a slot in PROTOCOL.md is the table in the code', () => {
  const rows = table(read('packages/core/PROTOCOL.md'), 'slot', 'may become')
  expect(Object.fromEntries(rows.map(([state, next]) => [words(state)[0], words(next)]))).toEqual(slotMoves)
})

test('the table of messages in PROTOCOL.md has every message with every required field', () => {
  const rows = table(read('packages/core/PROTOCOL.md'), 'message', 'from', 'fields')
  expect(Object.fromEntries(rows.map(([message, , fields]) => [words(message)[0], words(fields).map((field) => field.replace('[]', ''))]))).toEqual(Object.fromEntries(Object.entries(shapes).map(([type, shape]) => [type, Object.keys(shape)])))
})

test.each([['W', workerShapes], ['K', keeperShapes]] as const)('the table of the line in PROTOCOL.md has every message from %s with every field', (side, shapesOfSide) => {
  const rows = table(read('packages/core/PROTOCOL.md'), 'on the line', 'from', 'fields').filter(([, from]) => from === side)
  expect(Object.fromEntries(rows.map(([message, , fields]) => [words(message)[0], words(fields).map((field) => field.replace('[]', ''))]))).toEqual(Object.fromEntries(Object.entries(shapesOfSide).map(([type, shape]) => [type, Object.keys(shape)])))
})

test('docs/command.md has every option of every command, and no other', () => {
  const text = read('docs/command.md')
  for (const [command, help] of Object.entries(helpOf)) {
    const options = [...help.matchAll(/^ {2}(--[a-z-]+)/gm)].map((match) => match[1] ?? '')
    const row = table(text, 'command', 'options').find(([cell]) => words(cell)[0] === `handover ${command}`)
    expect([...new Set(words(row?.[1]).flatMap((piece) => /^--[a-z-]+/.exec(piece)?.[0] ?? []))].sort(), command).toEqual(options.sort())
  }
})

test.each([['an app', 'appStatusShape'], ['its `keeper`', 'keeperStatusShape'], ['a process', 'processStatusShape']])('docs/command.md has every field that status --json has of %s', (of, name) => {
  const source = read('packages/core/src/protocol/control-messages.ts')
  const fields = [...(new RegExp(`^(?:export )?const ${name} = shape\\(\\{(.*?)^\\}\\)`, 'ms').exec(source)?.[1] ?? '').matchAll(/^ {2}(\w+):/gm)].map((match) => match[1]!)
  expect(fields.length).toBeGreaterThan(5)
  const documented = table(read('docs/command.md'), 'of', 'fields').filter(([cell]) => cell?.startsWith(of)).flatMap(([, cell]) => words(cell))
  // The keeper of an app has rows of its own.
  expect(fields.filter((field) => field !== 'keeper' && !documented.includes(field))).toEqual([])
})

test('the pictures of docs/reload.md and of PROTOCOL.md name every state of a predecessor, in an order that the moves allow', () => {
  for (const file of ['docs/reload.md', 'packages/core/PROTOCOL.md']) {
    const picture = [...read(file).matchAll(/```\n([^`]*point of no return[^`]*)```/g)][0]?.[1] ?? ''
    const states = [...picture.matchAll(/^ {1,3}([a-z]+)\b/gm)].map((match) => match[1]).filter((word): word is keyof typeof moves => word !== undefined && word in moves)
    expect(states, file).toEqual(['serving', 'launching', 'offering', 'committing', 'draining', 'closing', 'ended'])
    states.slice(1).forEach((state, index) => { expect(moves[states[index] as keyof typeof moves], `${states[index]} to ${state}`).toContain(state) })
  }
})

test('the table of docs/options.md has every option with its default and its variable', () => {
  const rows = table(read('docs/options.md'), 'option', 'default', 'variable').filter(([, , variable]) => variable !== '')
  const settings = new SettingsOfProcess({}).get()
  expect(Object.fromEntries(rows.map(([option, value, variable]) => [words(option)[0], [value, words(variable)[0]]])))
    .toEqual(Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, [value === undefined ? '' : String(value), variableOf(key as keyof typeof settings)]])))
})

test('every piece of JavaScript in the README, in docs/ and in the README of a package is a whole module, and names nothing that it does not have', () => {
  const pieces = pages.flatMap((page) => [...read(page).matchAll(/^```js\n(.*?)^```$/gms)].map((match) => match[1] ?? ''))
  expect(pieces.length).toBeGreaterThan(12)
  const linter = new Linter()
  const globals = Object.fromEntries(['Buffer', 'console', 'process', 'setTimeout', 'URL'].map((name) => [name, 'readonly'] as const))
  for (const piece of pieces) {
    expect(linter.verify(piece, { languageOptions: { globals, sourceType: 'module' }, rules: { 'no-undef': 'error' } }), piece).toEqual([])
  }
})

test('the tests that CONTRIBUTING.md picks by a word in their names are there', () => {
  const picked = [...read('CONTRIBUTING.md').matchAll(/^npm test -- (\S+) -t (\w+)/gm)]
  expect(picked).not.toHaveLength(0)
  for (const [, file, word] of picked) {
    const names = [...read(`${file}.test.ts`).matchAll(/^ *(?:it|test)\b[^'\n]*'([^'\n]*)'/gm)].map((match) => match[1] ?? '')
    expect(names.filter((name) => name.includes(word!)), word).not.toHaveLength(0)
  }
})

test('the examples are at most 30 lines long and begin with the two commands that run them', () => {
  for (const name of ['http', 'fastify', 'express']) {
    const lines = read(`examples/${name}/server.mjs`).trimEnd().split('\n')
    expect(lines.length).toBeLessThanOrEqual(30)
    expect(lines[0]).toBe(`// node examples/${name}/server.mjs`)
    expect(lines[1]).toMatch(/^\/\/ kill -HUP /)
  }
})

/** The anchors of a page's headings, as GitHub and VitePress make them. */
const anchors = (text: string): string[] => [...text.replace(/^```.*?^```$/gms, '').matchAll(/^#+ (.*)$/gm)]
  .map((match) => (match[1] ?? '').toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'))

test.each([...pages, 'CONTRIBUTING.md', 'RELEASE.md', 'SECURITY.md'])('every link of %s leads to a file, and to a heading in it', (page) => {
  const links = [...read(page).replace(/^```.*?^```$/gms, '').matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1] ?? '').filter((link) => !/^[a-z]+:/.test(link))
  const broken = links.filter((link) => {
    const [file, anchor] = link.split('#')
    const target = file ? path.posix.join(path.posix.dirname(page), file) : page
    return !existsSync(new URL(`../../${target}`, import.meta.url)) || (anchor !== undefined && !anchors(read(target)).includes(anchor))
  })
  expect(broken).toEqual([])
})

test('the README has at most 120 lines and leads to docs/index.md, which names every page', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThanOrEqual(120)
  expect(read('README.md')).toContain('](docs/index.md)')
  const index = read('docs/index.md')
  expect(markdown('docs').map((file) => path.basename(file)).filter((name) => name !== 'index.md' && !index.includes(`](${name})`))).toEqual([])
})
