/** Reaping as PID 1: in a PID namespace of its own, which takes root and Linux. */

import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { reapOrphans } from '../../helpers/internals.js'

const program = path.join(import.meta.dirname, '../..', 'programs', 'reaper.mjs')
const namespace = ['--pid', '--fork', '--mount-proc', '--kill-child']
const refused = process.platform !== 'linux' ? 'no Linux' : spawnSync('unshare', [...namespace, 'true'], { encoding: 'utf8' }).stderr ?? 'no unshare'

const run = (...words: string[]): { begun: number; exits: number; zombies: number } => {
  const { stdout, stderr } = spawnSync('unshare', [...namespace, process.execPath, program, ...words], { encoding: 'utf8', timeout: 90_000, killSignal: 'SIGKILL' })
  expect(stderr).toBe('')
  return JSON.parse(stdout) as { begun: number; exits: number; zombies: number }
}

describe('PID 1', () => {
  it('reaps the orphans that come to it, and every exit event of its own processes arrives', ({ skip }) => {
    skip(refused !== '', `a PID namespace cannot be made here: ${refused}`)
    expect(run('60')).toEqual({ begun: 300, exits: 300, zombies: 0 })
  })

  it('would keep the zombies of orphans without that', ({ skip }) => {
    skip(refused !== '', `a PID namespace cannot be made here: ${refused}`)
    const { begun, exits, zombies } = run('3', 'without')
    expect(exits).toBe(begun)
    expect(zombies).toBeGreaterThan(0)
  })

  it('is the only process that does it: any other listens to no signal', () => {
    const before = process.listenerCount('SIGCHLD')
    const end = reapOrphans(() => false)
    expect(process.listenerCount('SIGCHLD')).toBe(before)
    end()
  })
})
