/** What servers of Node, Express and ws do at listen and close is the same with the preload, to the letter: see behaviours.cjs. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { certificate } from '../../programs/certificate.mjs'
import { runPlain, runPreloaded } from './plain-and-preloaded.js'

const folder = mkdtempSync(path.join(tmpdir(), 'handover-foreign-'))
let plain: Record<string, unknown>
let preloaded: Record<string, unknown>

beforeAll(async () => {
  const { key, cert } = certificate() as { key: string | Buffer; cert: string | Buffer }
  const file = path.join(folder, 'certificate.json')
  writeFileSync(file, JSON.stringify({ key: String(key), cert: String(cert) }))
  const words = [fileURLToPath(new URL('behaviours.cjs', import.meta.url))]
  const where = { cwd: import.meta.dirname, env: { CERTIFICATE: file } }
  const ran = { plain: await runPlain(words, where), preloaded: await runPreloaded(words, where) }
  for (const { status, stderr } of Object.values(ran)) expect(status, stderr).toBe(0)
  plain = JSON.parse(ran.plain.stdout) as Record<string, unknown>
  preloaded = JSON.parse(ran.preloaded.stdout) as Record<string, unknown>
}, 180_000)

afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

describe('what a program sees at listen and close is the same with the preload', () => {
  it('of every behaviour', () => {
    expect(Object.keys(plain).length).toBeGreaterThan(80)
    expect(Object.keys(preloaded)).toEqual(Object.keys(plain))
    for (const [name, outcome] of Object.entries(plain)) expect({ name, outcome: preloaded[name] }).toEqual({ name, outcome })
  })

  it('and each ran to its end', () => {
    for (const [name, outcome] of Object.entries(plain)) expect(outcome, name).toHaveProperty('value')
  })
})
