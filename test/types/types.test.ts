/**
 * The types that users get, compiled as they compile them: strict, as ES modules and as CommonJS.
 */

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

test('programs that use the packages compile, as ES modules and as CommonJS', () => {
  const compiler = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url))
  const { stdout, status } = spawnSync(process.execPath, [compiler, '--project', import.meta.dirname], { encoding: 'utf8' })
  expect(stdout).toBe('')
  expect(status).toBe(0)
})
