/**
 * `npm run release -- VERSION [--dry-run]`: one version in all packages and in what they say of one another, tarballs, their checks, a commit and a
 * tag. It publishes nothing: the workflow does that when the tag is pushed. RELEASE.md has the whole way.
 *
 * It refuses with a list of all that is missing, and has then changed nothing; if packing or a check fails, the files are as they were.
 * With --dry-run it packs and checks the packages as they are, says what it would do, and changes nothing.
 * With --built it takes dist/ as it is: the sources have been built.
 */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { pack, packages } from './pack.mjs'

const top = path.join(import.meta.dirname, '..')
const { values: { 'dry-run': isDry, built }, positionals: [version = ''] } = parseArgs({ options: { 'dry-run': { type: 'boolean' }, built: { type: 'boolean' } }, allowPositionals: true })
const git = (...words) => execFileSync('git', words, { cwd: top, encoding: 'utf8' }).trim()
const read = (file) => readFileSync(path.join(top, file), 'utf8')
const manifests = packages.map((name) => `packages/${name}/package.json`)
const owner = JSON.parse(read('release/owner.json'))
const current = JSON.parse(read(manifests[0])).version
const names = manifests.map((file) => JSON.parse(read(file)).name)
const tag = `v${version}`

/** What only the owner knows: nobody else fills it in. */
const ownersPart = {
  repository: 'the URL of the repository, as npm has it: git+https://…/….git',
  homepage: 'the URL of the documentation',
  bugs: 'the URL where users report defects',
  scope: 'the scope that is yours at the registry, with its @',
  command: 'the name of the package with the command, which has no scope'
}

const numbers = (text) => text.split('-')[0].split('.').map(Number)
const isEarlier = (one, other) => {
  const at = numbers(one).findIndex((number, index) => number !== numbers(other)[index])
  return at >= 0 && numbers(one)[at] < numbers(other)[at]
}

function* missing() {
  if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) yield `VERSION: npm run release -- 1.2.3; "${version}" is none`
  else {
    if (isEarlier(version, current)) yield `VERSION: ${version} is earlier than ${current}, which the packages have`
    if (git('tag', '--list', tag) !== '') yield `VERSION: there is a tag ${tag} already`
    if (!read('CHANGELOG.md').split('\n').includes(`## ${version}`)) yield `CHANGELOG.md: no section "## ${version}"`
  }
  if (git('status', '--porcelain') !== '') yield 'git: the tree has changes that are not committed'
  for (const [field, what] of Object.entries(ownersPart)) if (!owner[field]) yield `release/owner.json, "${field}": ${what}`
  const others = names.filter((name) => name.includes('/') ? owner.scope && !name.startsWith(`${owner.scope}/`) : owner.command && name !== owner.command)
  if (others.length > 0) yield `names: ${others.join(', ')} are not what release/owner.json says; RELEASE.md says how to rename them`
}

/** The manifests are formatted by hand: only what changes is touched. */
function released(file, text) {
  const dependencies = new RegExp(`("(?:${names.join('|')})": "\\^?)\\d[^"]*"`, 'g')
  const own = text.replace(/^( {2}"version": )"[^"]*"/m, `$1"${version}"`).replace(dependencies, `$1${version}"`)
  if (!file.startsWith('packages/')) return own
  const fields = { repository: { type: 'git', url: owner.repository, directory: path.dirname(file) }, homepage: owner.homepage, bugs: owner.bugs }
  const without = own.replace(/^ {2}"(repository|homepage|bugs)": .*\n/gm, '')
  return without.replace(/^ {2}"license": .*\n/m, (line) => line + Object.entries(fields).map(([field, value]) => `  "${field}": ${JSON.stringify(value)},\n`).join(''))
}

function releasedLock(text) {
  const lock = JSON.parse(text)
  for (const name of packages) {
    const entry = lock.packages[`packages/${name}`]
    entry.version = version
    for (const each of Object.keys(entry.dependencies ?? {})) if (names.includes(each)) entry.dependencies[each] = version
  }
  return `${JSON.stringify(lock, null, 2)}\n`
}

/** Answers the problems of the tarballs that the packages give as they are now. */
async function packed() {
  // It loads TypeScript, which takes long: a refusal is said at once.
  const { linuxBinaries, problemsOf } = await import('./check.mjs')
  if (!built) execFileSync('npm', ['run', '--silent', 'build'], { cwd: top, stdio: ['ignore', 'ignore', 'inherit'] })
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-release-'))
  try {
    pack(folder)
    return await problemsOf(folder, linuxBinaries)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function refuse(reason, found) {
  console.error(`${reason}:\n${found.map((each) => `  - ${each}`).join('\n')}`)
  process.exitCode = 1
}

async function release() {
  const files = [...manifests, 'examples/command/package.json']
  const texts = [...files.map((file) => [file, released(file, read(file))]), ['package-lock.json', releasedLock(read('package-lock.json'))]]
  const changed = texts.filter(([file, text]) => text !== read(file))
  try {
    for (const [file, text] of changed) writeFileSync(path.join(top, file), text)
    const problems = await packed()
    if (problems.length > 0) throw Object.assign(new Error('the tarballs cannot be published, and nothing was changed'), { problems })
    if (changed.length > 0) git('commit', '--quiet', '--message', `Version ${version}`, '--', ...changed.map(([file]) => file))
  } catch (error) {
    git('checkout', '--', ...texts.map(([file]) => file))
    refuse(error.message, error.problems ?? [])
    return
  }
  git('tag', '--annotate', tag, '--message', `Version ${version}`)
  console.log(`${tag} is tagged. To publish it: git push --follow-tags`)
}

const found = [...missing()]
if (isDry) {
  const problems = await packed()
  if (problems.length > 0) refuse('the tarballs cannot be published', problems)
  console.log(`would set ${version} in ${packages.length} packages, commit, and tag ${tag}`)
}
if (found.length > 0) refuse('not released, and nothing was changed. Missing', found)
else if (!isDry) await release()
