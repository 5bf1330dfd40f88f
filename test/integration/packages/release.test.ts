/**
 * `npm run release`, in a copy of this repository: what it refuses, what a release has changed, and that a failed one has changed nothing.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Folder } from '../../helpers/plan.js'
import { root } from '../../helpers/world.js'

const folder = new Folder()
const top = folder.at('handover')
const git = (...words: string[]): string => execFileSync('git', words, { cwd: top, encoding: 'utf8' }).trim()
const read = (file: string): string => readFileSync(path.join(top, file), 'utf8')
interface Manifest { version: string; dependencies?: Record<string, string>; repository?: object; homepage?: string; bugs?: string }
const manifest = (file: string): Manifest => JSON.parse(read(file)) as Manifest
const names = ['core', 'load', 'fastify', 'express', 'prom-client', 'cli']
/** What is built was copied: building it again would take longer than all of the test. */
const release = (...words: string[]) => spawnSync(process.execPath, ['release/release.mjs', '--built', ...words], { cwd: top, encoding: 'utf8' })

beforeAll(() => {
  mkdirSync(top)
  for (const name of ['.gitignore', 'CHANGELOG.md', 'LICENSE', 'binding.gyp', 'examples', 'native', 'package-lock.json', 'package.json', 'packages', 'release']) {
    cpSync(path.join(root, name), path.join(top, name), { recursive: true, preserveTimestamps: true, filter: (from) => path.basename(from) !== 'prebuilds' })
  }
  symlinkSync(path.join(root, 'node_modules'), path.join(top, 'node_modules'))
  // The way of a release is tried, not its binaries: a file stands for each, which another test may be building.
  for (const name of ['linux-x64', 'linux-x64-musl', 'linux-arm64', 'linux-arm64-musl']) {
    const file = path.join(top, 'packages/core/prebuilds', name, 'handover.node')
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, '')
  }
  git('init', '--quiet', '--initial-branch', 'main')
  git('config', 'user.name', 'test')
  git('config', 'user.email', 'test@example.org')
  writeFileSync(path.join(top, '.git/info/exclude'), 'node_modules\n')
  commit('first')
})
afterAll(() => { folder[Symbol.dispose]() })

function commit(message: string): void {
  git('add', '--all')
  git('commit', '--quiet', '--message', message)
}

test('it lists all that is missing, of which most is only known to the owner, and changes nothing', () => {
  appendFileSync(path.join(top, 'LICENSE'), 'changed')
  const before = [git('status', '--porcelain'), git('rev-parse', 'HEAD')]
  const { status, stderr } = release('987.6.5')
  expect(status).toBe(1)
  expect([...stderr.matchAll(/^ {2}- (.*?):/gm)].map(([, what]) => what)).toEqual([
    'CHANGELOG.md', 'git', 'release/owner.json, "repository"', 'release/owner.json, "homepage"', 'release/owner.json, "bugs"', 'release/owner.json, "scope"', 'release/owner.json, "command"'
  ])
  expect([git('status', '--porcelain'), git('rev-parse', 'HEAD')]).toEqual(before)
  git('checkout', '--', 'LICENSE')
  expect(release('0.0.9').stderr).toMatch(/VERSION: 0\.0\.9 is earlier than \d/)
  expect(release('next').stderr).toContain('"next" is none')
})

test('with the fields filled in it sets one version everywhere, checks the tarballs, commits and tags; the same version is refused afterwards', () => {
  const url = 'https://example.org/handover'
  writeFileSync(path.join(top, 'release/owner.json'), JSON.stringify({ repository: `git+${url}.git`, homepage: url, bugs: `${url}/bugs`, scope: '@handover', command: 'handover' }))
  appendFileSync(path.join(top, 'CHANGELOG.md'), '\n## 987.6.5\n')
  commit('filled in')

  const dry = release('987.6.5', '--dry-run')
  expect({ status: dry.status, errors: dry.stderr.replace(/^(>.*|prebuild.*|)\n/gm, '') }).toEqual({ status: 0, errors: '' })
  expect([git('status', '--porcelain'), git('tag'), git('log', '-1', '--format=%s')]).toEqual(['', '', 'filled in'])

  const { status, stdout } = release('987.6.5')
  expect({ status, stdout }).toMatchObject({ status: 0 })
  expect(stdout.match(/^handover-\S+-987\.6\.5\.tgz {2}\d+ kB, unpacked \d+ kB, \d+ files$/gm)).toHaveLength(5)
  expect(stdout).toContain('v987.6.5 is tagged')
  expect([git('status', '--porcelain'), git('describe'), git('log', '-1', '--format=%s')]).toEqual(['', 'v987.6.5', 'Version 987.6.5'])
  for (const name of names) {
    const directory = `packages/${name}`
    const { version, dependencies = {}, repository, homepage, bugs } = manifest(`${directory}/package.json`)
    expect({ version, repository, homepage, bugs }).toEqual({ version: '987.6.5', repository: { type: 'git', url: `git+${url}.git`, directory }, homepage: url, bugs: `${url}/bugs` })
    const locked = (JSON.parse(read('package-lock.json')) as { packages: Record<string, object> }).packages[directory]
    expect(locked).toMatchObject({ version, ...(Object.keys(dependencies).length > 0 && { dependencies }) })
    for (const [other, wanted] of Object.entries(dependencies)) if (other.startsWith('@handover/')) expect(wanted).toBe('987.6.5')
  }
  expect(manifest('examples/command/package.json')).toMatchObject({ dependencies: { handover: '^987.6.5' } })

  expect(release('987.6.5').stderr).toContain('there is a tag v987.6.5 already')
})

test('where a tarball cannot be published it says why, and leaves the files as they were, and no tag', () => {
  writeFileSync(path.join(top, 'packages/express/LICENSE'), 'All rights reserved\n')
  appendFileSync(path.join(top, 'packages/fastify/dist/index.d.ts'), `// ${top}\n`)
  appendFileSync(path.join(top, 'CHANGELOG.md'), '\n## 987.7.0\n')
  commit('another licence')
  const { status, stderr } = release('987.7.0')
  expect(status).toBe(1)
  expect(stderr).toContain('- @handover/express: LICENSE is missing, or another')
  expect(stderr).toContain('- @handover/fastify: dist/index.d.ts names the folder that it was packed in')
  expect([git('status', '--porcelain'), git('tag'), manifest('packages/core/package.json').version]).toEqual(['', 'v987.6.5', '987.6.5'])
})
