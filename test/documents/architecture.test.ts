/** docs/ARCHITECTURE.md names files and rooms that exist, every room of the code, and stays short enough to be read. */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (file: string): string => readFileSync(`${root}/${file}`, 'utf8')
const page = read('docs/ARCHITECTURE.md')
const bases = ['', 'packages/core/src/', 'packages/cli/src/', 'packages/core/src/sharing/sections/', 'packages/cli/src/keeper/', 'packages/core/src/platform/node/']
const lines = (file: string): number => read(file).split('\n').length - 1

describe('ARCHITECTURE', () => {
  const named = [...new Set([...page.matchAll(/`((?:[\w.-]+\/)*[\w.-]+(?:\.\w+|\/))`/g)].map(([, path]) => path!))].filter((path) => /\/|\.ts$/.test(path))

  it('names some files', () => { expect(named.length).toBeGreaterThan(40) })

  it.each(named)('%s exists', (path) => {
    expect(bases.some((base) => existsSync(`${root}/${base}${path}`))).toBe(true)
  })

  it.each(['core', 'cli', 'load'])('names every room of %s', (name) => {
    const rooms = readdirSync(`${root}/packages/${name}/src`, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name)
    expect(rooms.filter((room) => !page.includes(`${room}/`))).toEqual([])
  })

  it('explains a reload in at most 1,500 lines: this page, the act, the messages and the lifecycle', () => {
    const act = readdirSync(`${root}/packages/core/src/handover`).map((file) => `packages/core/src/handover/${file}`)
    const path = ['docs/ARCHITECTURE.md', 'packages/core/src/protocol/handover-messages.ts', 'packages/core/src/protocol/lifecycle.ts', ...act]
    expect(path.reduce((sum, file) => sum + lines(file), 0)).toBeLessThanOrEqual(1_500)
  })
})
