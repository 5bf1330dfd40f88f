// `npm test`: runs vitest and closes with one line that says how many tests passed and failed. Arguments go to vitest.
// HANDOVER_TEST_COUNTS names a file to which the counts are added, for a run over several versions of Node.
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'

const vitest = path.join(path.dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs')
const folder = mkdtempSync(path.join(tmpdir(), 'handover-test-'))
const result = path.join(folder, 'result.json')
const { status } = spawnSync(process.execPath, [vitest, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${result}`, ...process.argv.slice(2)], { stdio: 'inherit' })

let counts
try {
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(readFileSync(result, 'utf8'))
  // A file that does not even load has no failed test of its own.
  const brokenFiles = testResults.filter((file) => file.status === 'failed' && file.assertionResults.every((test) => test.status !== 'failed')).length
  counts = { passed: numPassedTests, failed: numFailedTests + brokenFiles, skipped: numPendingTests }
} catch {
  counts = { passed: 0, failed: 1, skipped: 0 }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
if (process.env.HANDOVER_TEST_COUNTS) appendFileSync(process.env.HANDOVER_TEST_COUNTS, `${counts.passed} ${counts.failed} ${counts.skipped}\n`)
console.log(`Node ${process.version}`)
console.log(`${counts.passed} passed, ${counts.failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}`)
process.exitCode = status !== 0 || counts.failed > 0 || counts.passed === 0 ? 1 : 0
