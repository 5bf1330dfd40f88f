// `npm test`: runs vitest and closes with one line that says how many tests passed and failed. Arguments go to vitest.
// HANDOVER_TEST_COUNTS names a file to which the counts are added, for a run over several versions of Node.
// HANDOVER_TEST_ALONE=N: where at most N files fail, those are run once more, each by itself: processes that get no processor for seconds (a busy machine) look
// like hung ones. What passes only then is named, and what fails twice has failed.
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'

const { env } = process
const vitest = path.join(path.dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs')

/** By file: the tests that passed, failed and were skipped. A file that does not even load has one that failed. Undefined where vitest has no result. */
function run(args, workers) {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-test-'))
  const result = path.join(folder, 'result.json')
  const { status } = spawnSync(process.execPath, [vitest, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${result}`, ...args], { stdio: 'inherit', env: { ...env, ...(workers && { HANDOVER_TEST_WORKERS: workers }) } })
  try {
    const files = new Map()
    for (const { name, status: fileStatus, assertionResults } of JSON.parse(readFileSync(result, 'utf8')).testResults) {
      const named = (wanted) => assertionResults.filter((test) => test.status === wanted).map((test) => test.fullName)
      const failed = named('failed')
      if (fileStatus === 'failed' && failed.length === 0) failed.push('the file itself')
      files.set(name, { passed: named('passed'), failed, skipped: assertionResults.length - named('passed').length - named('failed').length })
    }
    return { files, status }
  } catch {
    return { files: undefined, status }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const { files, status } = run(process.argv.slice(2))
let unclear = status !== 0
const failing = [...(files ?? [])].filter(([, { failed }]) => failed.length > 0)
const alone = []
if (failing.length > 0 && failing.length <= Number(env.HANDOVER_TEST_ALONE ?? 0)) {
  for (const [name, first] of failing) {
    console.log(`\n${path.relative(process.cwd(), name)} failed beside others, and is run by itself`)
    const second = run([name], '1')
    files.set(name, second.files?.get(name) ?? first)
    const left = files.get(name).failed
    alone.push(...first.failed.filter((test) => !left.includes(test)))
  }
  unclear = false
}

const sum = (count) => [...(files?.values() ?? [])].reduce((total, file) => total + count(file), 0)
const counts = files ? { passed: sum(({ passed }) => passed.length), failed: sum(({ failed }) => failed.length), skipped: sum(({ skipped }) => skipped) } : { passed: 0, failed: 1, skipped: 0 }
if (env.HANDOVER_TEST_COUNTS) appendFileSync(env.HANDOVER_TEST_COUNTS, `${counts.passed} ${counts.failed} ${counts.skipped}\n`)
console.log(`Node ${process.version}`)
for (const test of alone) console.log(`passed only when run by itself: ${test}`)
console.log(`${counts.passed} passed, ${counts.failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}`)
process.exitCode = unclear || counts.failed > 0 || counts.passed === 0 ? 1 : 0
