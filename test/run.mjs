// `npm test`: runs vitest and closes with one line that says how many tests passed and failed. Arguments go to vitest.
//   --slowest                    names the files and the tests that took longest
//   HANDOVER_TEST_COUNTS=FILE    the counts are added to FILE, for a run over several versions of Node
//   HANDOVER_TEST_ALONE=N        where at most N files fail, those are run once more, each by itself: processes that get no processor for seconds (a busy
//                                machine) look like hung ones. What passes only then is named at the end, and what fails twice has failed
//   HANDOVER_TEST_LOCK=FILE      several of these run at the same time, with this file: a run by itself waits until the others have only such left
//   HANDOVER_TEST_SECOND=FILE    what passed only at the second run is added to FILE too
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'

const { env } = process
const vitest = path.join(path.dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs')
const relative = (file) => path.relative(process.cwd(), file)
const slowestShown = 20

/** By file: the tests that passed, failed and were skipped. A file that does not even load has one that failed. Undefined where vitest has no result. */
function run(args, { alone = false } = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-test-'))
  const result = path.join(folder, 'result.json')
  const lock = env.HANDOVER_TEST_LOCK ? ['flock', alone ? '--exclusive' : '--shared', env.HANDOVER_TEST_LOCK] : []
  const [program, ...words] = [...lock, process.execPath, vitest, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${result}`, ...args]
  const { status } = spawnSync(program, words, { stdio: 'inherit', env: { ...env, ...(alone && { HANDOVER_TEST_WORKERS: '1' }) } })
  try {
    const files = new Map()
    for (const { name, status: fileStatus, startTime, endTime, assertionResults } of JSON.parse(readFileSync(result, 'utf8')).testResults) {
      const named = (wanted) => assertionResults.filter((test) => test.status === wanted).map((test) => test.fullName)
      const failed = named('failed')
      if (fileStatus === 'failed' && failed.length === 0) failed.push('the file itself')
      const times = assertionResults.map(({ fullName, duration }) => ({ what: `${relative(name)}: ${fullName}`, ms: duration ?? 0 }))
      files.set(name, { passed: named('passed'), failed, skipped: assertionResults.length - named('passed').length - named('failed').length, ms: endTime - startTime, times })
    }
    return { files, status }
  } catch {
    return { files: undefined, status }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function showSlowest(what, times) {
  const total = times.reduce((sum, { ms }) => sum + ms, 0)
  console.log(`\nslowest ${what}, of ${(total / 1000).toFixed(0)} s in all:`)
  for (const { what: name, ms } of times.toSorted((a, b) => b.ms - a.ms).slice(0, slowestShown)) console.log(`${(ms / 1000).toFixed(1).padStart(7)} s  ${name}`)
}

const args = process.argv.slice(2)
const { files, status } = run(args.filter((word) => word !== '--slowest'))
let unclear = status !== 0
const failing = [...(files ?? [])].filter(([, { failed }]) => failed.length > 0)
const second = []
if (failing.length > 0 && failing.length <= Number(env.HANDOVER_TEST_ALONE ?? 0)) {
  for (const [name, first] of failing) {
    console.log(`\n${relative(name)} failed beside others, and is run by itself`)
    files.set(name, run([name], { alone: true }).files?.get(name) ?? first)
    const left = files.get(name).failed
    second.push(...first.failed.filter((test) => !left.includes(test)).map((test) => `Node ${process.version}, ${relative(name)}: ${test}`))
  }
  unclear = false
}

if (args.includes('--slowest') && files) {
  showSlowest('files', [...files].map(([name, { ms }]) => ({ what: relative(name), ms })))
  showSlowest('tests', [...files.values()].flatMap(({ times }) => times))
}
const sum = (count) => [...(files?.values() ?? [])].reduce((total, file) => total + count(file), 0)
const counts = files ? { passed: sum(({ passed }) => passed.length), failed: sum(({ failed }) => failed.length), skipped: sum(({ skipped }) => skipped) } : { passed: 0, failed: 1, skipped: 0 }
if (env.HANDOVER_TEST_COUNTS) appendFileSync(env.HANDOVER_TEST_COUNTS, `${counts.passed} ${counts.failed} ${counts.skipped}\n`)
if (env.HANDOVER_TEST_SECOND && second.length > 0) appendFileSync(env.HANDOVER_TEST_SECOND, `${second.join('\n')}\n`)
console.log(`Node ${process.version}`)
for (const test of second) console.log(`PASSED ONLY WHEN RUN BY ITSELF: ${test}`)
console.log(`${counts.passed} passed, ${counts.failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}`)
process.exitCode = unclear || counts.failed > 0 || counts.passed === 0 ? 1 : 0
