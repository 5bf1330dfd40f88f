/**
 * What no unit test does: start a process. `spawn`, `fork`, `exec` and their relatives throw in test/unit, so that these tests stay a
 * matter of seconds on any machine. A test of a claim about processes belongs to test/integration, or to test/faults.
 */

import childProcess from 'node:child_process'
import { syncBuiltinESMExports } from 'node:module'
import { takeCoverage } from 'node:v8'
import { afterAll } from 'vitest'

for (const name of ['spawn', 'spawnSync', 'fork', 'exec', 'execSync', 'execFile', 'execFileSync'] as const) {
  Object.defineProperty(childProcess, name, {
    value: (program: unknown) => { throw new Error(`a unit test starts no process (${name} ${String(program)}): move it to test/integration`) }
  })
}
syncBuiltinESMExports()

// Vitest kills its processes, so that Node would not write down what they covered (`npm run coverage`).
if (process.env['NODE_V8_COVERAGE']) afterAll(() => { takeCoverage() })
