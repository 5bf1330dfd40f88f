/**
 * `node release/check.mjs FOLDER [BINARY...]`: what must hold of tarballs before anybody installs them. publint and "are the types wrong" find
 * nothing; each has the licence, no source map without its sources, no source of ours, no script that runs at install, and no path of the
 * machine that made it; all have one version, and depend on one another in that version. Core has the BINARIES (linux-x64, darwin-arm64, …).
 */

import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { publint } from 'publint'

const top = path.join(import.meta.dirname, '..')
const licence = readFileSync(path.join(top, 'LICENSE'), 'utf8')
export const linuxBinaries = ['linux-x64', 'linux-x64-musl', 'linux-arm64', 'linux-arm64-musl']

function* problemsInFiles(tarball, root, files) {
  for (const file of files) {
    if (/(^|\/)(src|test)\/|\.tsbuildinfo$|(?<!\.d)\.[cm]?ts$|\.(cc|h|gyp)$/.test(file)) yield `${file} does not belong into it`
    if (file.endsWith('.node')) continue
    const text = tarball.readFile(`${root}${file}`)
    if (text.includes(top)) yield `${file} names the folder that it was packed in`
    if (!file.endsWith('.map')) continue
    const { sources, sourcesContent } = JSON.parse(text)
    if (sourcesContent?.length !== sources.length) yield `${file} is a source map without its sources`
  }
}

function* problemsOfPackage({ scripts = {}, version, dependencies = {} }, versions) {
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) if (scripts[name]) yield `it runs a script at install: ${name}`
  for (const [name, wanted] of Object.entries(dependencies)) {
    if (versions.has(name) && wanted !== version) yield `it depends on ${name} ${wanted}, and its own version is ${version}`
  }
}

async function* problemsOfTypes(bytes, name) {
  const { messages } = await publint({ pack: { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) }, strict: true })
  for (const { code, path: at } of messages) yield `publint: ${code} at ${at.join('.')}`
  const analysis = await checkPackage(createPackageFromTarballData(new Uint8Array(bytes)))
  for (const { kind, ...more } of analysis.problems ?? []) {
    // The load client is an ES module alone: Node 20.19 and later require() it.
    if (kind !== 'CJSResolvesToESM' || name !== '@handover/load') yield `are the types wrong: ${kind} ${JSON.stringify(more)}`
  }
}

/** Of all tarballs in the folder: a text for each problem, none if they can be published. */
export async function problemsOf(folder, binaries = []) {
  const tarballs = readdirSync(folder).filter((name) => name.endsWith('.tgz')).map((name) => {
    const bytes = readFileSync(path.join(folder, name))
    const tarball = createPackageFromTarballData(new Uint8Array(bytes))
    const root = `/node_modules/${tarball.packageName}/`
    return { bytes, tarball, root, files: tarball.listFiles(root).map((file) => file.slice(root.length)) }
  })
  const versions = new Map(tarballs.map(({ tarball }) => [tarball.packageName, tarball.packageVersion]))
  const found = tarballs.length === 0 ? [`there are no tarballs in ${folder}`] : []
  if (new Set(versions.values()).size > 1) found.push(`they have several versions: ${[...versions].map((each) => each.join(' ')).join(', ')}`)
  for (const { bytes, tarball, root, files } of tarballs) {
    const name = tarball.packageName
    const read = (file) => tarball.tryReadFile(`${root}${file}`)
    const own = [...problemsInFiles(tarball, root, files), ...problemsOfPackage(JSON.parse(read('package.json')), versions)]
    if (read('LICENSE') !== licence) own.push('LICENSE is missing, or another')
    if (name.endsWith('/core')) own.push(...binaries.filter((each) => !files.includes(`prebuilds/${each}/handover.node`)).map((each) => `there is no binary for ${each}`))
    for await (const problem of problemsOfTypes(bytes, name)) own.push(problem)
    found.push(...own.map((problem) => `${name}: ${problem}`))
  }
  return found
}

if (process.argv[1] === import.meta.filename) {
  const [folder = 'tarballs', ...binaries] = process.argv.slice(2)
  const found = await problemsOf(folder, binaries)
  for (const problem of found) console.error(problem)
  console.log(found.length === 0 ? 'the tarballs can be published' : `${found.length} problems`)
  process.exitCode = found.length === 0 ? 0 : 1
}
