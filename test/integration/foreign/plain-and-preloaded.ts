/**
 * Runs a file of somebody else's twice, one after the other, since it may have ports of its own: as it is, and with the preload, as under
 * `handover run`.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { preloadFile } from '../../helpers/built.js'

export interface Ran {
  readonly stdout: string
  readonly stderr: string
  readonly status: number | null
}

async function run(words: readonly string[], cwd: string, env: Readonly<Record<string, string>>): Promise<Ran> {
  const { NODE_OPTIONS: _options, VITEST: _vitest, NODE_ENV: _env, ...inherited } = process.env
  const child = spawn(process.execPath, words, { cwd, env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const [stdout, stderr, [status]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close') as Promise<[number | null]>])
  return { stdout, stderr, status }
}

/** `words`: of node. */
export async function runPlainAndPreloaded(
  words: readonly string[], { cwd, env = {} }: { cwd: string; env?: Readonly<Record<string, string>> }
): Promise<{ plain: Ran; preloaded: Ran }> {
  const plain = await run(words, cwd, env)
  return { plain, preloaded: await run(words, cwd, { ...env, HANDOVER_PRELOAD: '1', NODE_OPTIONS: `--require ${preloadFile}` }) }
}
