/**
 * State between versions of Node, as text and in V8's format: what each of them writes, all of them read as the same, and a type that one
 * does not know is refused in words.
 * HANDOVER_TEST_NODES: the other Node binaries, separated by colons. Without it there is nothing to compare, and the tests are skipped.
 */

import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { programPath } from '../../helpers/program.js'

const others = (process.env['HANDOVER_TEST_NODES'] ?? '').split(':').filter((binary) => binary !== '')
const binaries = [process.execPath, ...others]
const program = programPath('state-text.mjs')

describe.skipIf(others.length === 0)(`between ${binaries.length} versions of Node (HANDOVER_TEST_NODES)`, { timeout: 300_000 }, () => {
  const run = (binary: string, input: string, ...args: readonly string[]): string => {
    const { stdout, stderr } = spawnSync(binary, [program, ...args], { input, encoding: 'utf8', maxBuffer: 2 ** 30 })
    expect(stderr, `${binary} ${args.join(' ')}`).toBe('')
    return stdout
  }

  test('what each of them writes, all of them read as the same', () => {
    const seed = String(Math.floor(Math.random() * 2 ** 31))
    const count = 150
    const texts = binaries.map((binary) => run(binary, '', 'write', seed, String(count)))
    for (const binary of binaries) {
      const { texts: same, plain } = JSON.parse(run(binary, texts.join(''), 'read', seed, String(count))) as { texts: number; plain: number }
      expect(same).toBe(count * binaries.length)
      expect(plain).toBeGreaterThan(binaries.length)
    }
  })

  test('a type that a version does not know is refused with that version', () => {
    const answers = binaries.map((binary) => JSON.parse(run(binary, '[["Float16Array",1],["ArrayBuffer","AAA="]]\n', 'refuse', 'Float16Array')) as { version: string; known: boolean; error?: string })
    for (const { version, known, error } of answers) {
      if (known) expect(error).toBeUndefined()
      else expect(error).toContain(`HANDOVER_STATE]: the state of a sample cannot be read by this process (Node ${version})`)
    }
    expect(new Set(answers.map(({ known }) => known)).size).toBe(2)
  })
})
