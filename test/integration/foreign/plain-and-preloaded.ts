/**
 * Runs a file of somebody else's as it is, or with the preload, as under `handover run`. Not both at a time: it may have ports of its own.
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

export interface Where {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
}

/** `words`: of node. */
export const runPlain = async (words: readonly string[], { cwd, env = {} }: Where): Promise<Ran> => await run(words, cwd, env)

/** `words`: of node. */
export const runPreloaded = async (words: readonly string[], { cwd, env = {} }: Where): Promise<Ran> =>
  await run(words, cwd, { ...env, HANDOVER_PRELOAD: '1', NODE_OPTIONS: `--require ${preloadFile}` })
