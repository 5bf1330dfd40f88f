// `npm test`: runs vitest and closes with one line that says how many tests passed and failed. Arguments go to vitest.
//   --slowest                    names the files and the tests that took longest
//   HANDOVER_TEST_COUNTS=FILE    the counts are added to FILE, for a run over several versions of Node
//   HANDOVER_TEST_COVERAGE=DIR   what the unit tests cover is written to DIR, as c8 reads it
//   HANDOVER_TEST_REMARKS=FILE   what the end says of failed tests and of those in test/known-flaky.json is added to FILE too
// A test that fails has failed: there is no second run. Only those that test/known-flaky.json lists ({ file, test, reason, since }) are run once more, by
// themselves, and the end names each of them that ran, with its reason, and whether it needed the second run. That list is best empty.
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'

const { env } = process
const vitest = path.join(path.dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs')
const relative = (file) => path.relative(process.cwd(), file)
const slowestShown = 20
const messageShown = 1500

/** By file: the tests that passed, failed and were skipped. A file that does not even load has one that failed. Undefined where vitest has no result. */
function run(args) {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-test-'))
  const result = path.join(folder, 'result.json')
  const words = [vitest, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${result}`, ...args]
  const { status } = spawnSync(process.execPath, words, { stdio: 'inherit', env })
  try {
    const files = new Map()
    for (const { name, status: fileStatus, startTime, endTime, assertionResults, message: fileMessage } of JSON.parse(readFileSync(result, 'utf8')).testResults) {
      const named = (wanted) => assertionResults.filter((test) => test.status === wanted).map((test) => test.fullName)
      const failed = named('failed')
      if (fileStatus === 'failed' && failed.length === 0) failed.push('the file itself')
      const times = assertionResults.map(({ fullName, duration }) => ({ what: `${relative(name)}: ${fullName}`, ms: duration ?? 0 }))
      const messages = new Map(assertionResults.map(({ fullName, failureMessages }) => [fullName, failureMessages?.join('\n').replace(/\n +at .*node_modules.*/g, '')]))
      const skipped = assertionResults.length - named('passed').length - named('failed').length
      files.set(name, { passed: named('passed'), failed, skipped, ms: endTime - startTime, times, message: (test) => messages.get(test) ?? fileMessage })
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
// Where vitest has failed and no test has, something else went wrong: an error outside of tests, say.
const strange = status !== 0 && ![...(files?.values() ?? [])].some(({ failed }) => failed.length > 0)

const flaky = JSON.parse(readFileSync(new URL('known-flaky.json', import.meta.url), 'utf8'))
const said = []
for (const { file, test, reason, since } of flaky) {
  const name = path.resolve(file)
  const first = files?.get(name)
  if (!first || !(first.failed.includes(test) || first.passed.includes(test))) continue
  let end = 'passed at once'
  if (first.failed.includes(test)) {
    console.log(`\n${file}: "${test}" failed, is listed in test/known-flaky.json, and is run once more by itself`)
    const exactly = `^${test.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`
    const again = run([file, '-t', exactly]).files?.get(name)?.passed.includes(test)
    end = again ? 'PASSED ONLY AT THE SECOND RUN' : 'FAILED TWICE'
    if (again) {
      first.failed.splice(first.failed.indexOf(test), 1)
      first.passed.push(test)
    }
  }
  said.push(`KNOWN FLAKY, ${end}: Node ${process.version}, ${file}: ${test} (since ${since}: ${reason})`)
}

for (const [name, { failed, message }] of files ?? []) {
  for (const test of failed) said.push(`FAILED: Node ${process.version}, ${relative(name)}: ${test}\n${(message(test) ?? '').slice(0, messageShown).replace(/^/gm, '    ')}`)
}

if (args.includes('--slowest') && files) {
  showSlowest('files', [...files].map(([name, { ms }]) => ({ what: relative(name), ms })))
  showSlowest('tests', [...files.values()].flatMap(({ times }) => times))
}
const sum = (count) => [...(files?.values() ?? [])].reduce((total, file) => total + count(file), 0)
const counts = files
  ? { passed: sum(({ passed }) => passed.length), failed: sum(({ failed }) => failed.length), skipped: sum(({ skipped }) => skipped) }
  : { passed: 0, failed: 1, skipped: 0 }
if (env.HANDOVER_TEST_COUNTS) appendFileSync(env.HANDOVER_TEST_COUNTS, `${counts.passed} ${counts.failed} ${counts.skipped}\n`)
if (env.HANDOVER_TEST_REMARKS && said.length > 0) appendFileSync(env.HANDOVER_TEST_REMARKS, `${said.join('\n')}\n`)
console.log(`Node ${process.version}`)
for (const line of said) console.log(line)
console.log(`${counts.passed} passed, ${counts.failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}`)
process.exitCode = strange || counts.failed > 0 || counts.passed === 0 ? 1 : 0
