/**
 * Runs a few lines as a module of their own, in a real Node process: for what a test runner that loads modules itself cannot show.
 */

import { spawnSync } from 'node:child_process'

export interface Run {
  readonly stdout: string
  readonly stderr: string
  readonly status: number | null
}

/** Resolves packages as a file in this folder would. `env` is added to the environment of the tests. */
export function runModule(script: string, env: Readonly<Record<string, string>> = {}, args: readonly string[] = []): Run {
  const { NODE_OPTIONS: _options, NODE_ENV: _env, VITEST: _vitest, ...inherited } = process.env
  const { stdout, stderr, status } = spawnSync(process.execPath, [...args, '--input-type=module', '--eval', script], {
    encoding: 'utf8',
    cwd: import.meta.dirname,
    env: { ...inherited, ...env },
    timeout: 30_000
  })
  return { stdout, stderr, status }
}
