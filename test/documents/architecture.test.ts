/** docs/architecture.md names files and rooms that exist, every room of the code; with the code of a reload it stays short. */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (file: string): string => readFileSync(`${root}/${file}`, 'utf8')
const page = read('docs/architecture.md')
const bases = ['', 'packages/core/src/', 'packages/cli/src/', 'packages/core/src/sharing/sections/', 'packages/cli/src/keeper/', 'packages/core/src/generation/', 'packages/core/src/platform/node/']

describe('ARCHITECTURE', () => {
  const named = [...new Set([...page.matchAll(/`((?:[\w.-]+\/)*[\w.-]+(?:\.\w+|\/))`/g)].map(([, path]) => path!))].filter((path) => /\/|\.ts$/.test(path))

  it('names some files', () => { expect(named.length).toBeGreaterThan(40) })

  it.each(named)('%s exists', (path) => {
    expect(bases.some((base) => existsSync(`${root}/${base}${path}`))).toBe(true)
  })

  it('is with the files that explain a reload at most 1,500 lines', () => {
    const core = 'packages/core/src'
    const act = readdirSync(`${root}/${core}/handover`).map((name) => `${core}/handover/${name}`)
    const files = ['docs/architecture.md', `${core}/protocol/handover-messages.ts`, `${core}/protocol/lifecycle.ts`, ...act]
    const lines = files.map((file) => read(file).split('\n').length - 1)
    expect(lines.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(1_500)
  })

  it.each(['core', 'cli', 'load'])('names every room of %s', (name) => {
    const rooms = readdirSync(`${root}/packages/${name}/src`, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name)
    expect(rooms.filter((room) => !page.includes(`${room}/`))).toEqual([])
  })
})
