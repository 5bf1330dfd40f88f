/**
 * `npm run binaries`: the addon for Linux on x64 and arm64, with glibc and with musl, into packages/core/prebuilds. node-gyp builds each
 * from binding.gyp in a folder of its own. On macOS: the binary of this machine.
 *
 * It needs g++, Debian's g++-aarch64-linux-gnu, musl-dev and musl-dev:arm64; the headers of GCC's C++ library serve both libcs. A binary that
 * cannot be built here is named, and the command fails unless `--available` is given: as when core is packed, which needs the binary of this
 * machine alone. What is younger than its sources is left. Words behind it choose binaries: linux-x64-musl.
 */

import { execFile } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const top = path.join(import.meta.dirname, '..')
const nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js')
/** The headers that were installed with this Node; without them node-gyp fetches them. */
const nodeHeaders = path.resolve(process.execPath, '../..')
const withHeaders = existsSync(path.join(nodeHeaders, 'include/node/node_api.h')) ? ['--nodedir', nodeHeaders] : []
const words = process.argv.slice(2)
const wanted = words.filter((word) => !word.startsWith('-'))

/** Headers of a kernel without those of a libc around them. */
function kernelHeaders(folder, triplet) {
  const headers = path.join(folder, 'kernel')
  mkdirSync(headers)
  const own = [`/usr/${triplet}/include`, `/usr/include/${triplet}`, '/usr/include']
  for (const name of ['linux', 'asm', 'asm-generic']) symlinkSync(own.map((at) => path.join(at, name)).find(existsSync), path.join(headers, name))
  return headers
}

/** The compiler's own folders, C++ before C, but for those of its libc. */
async function muslHeaders(compiler, folder, triplet, musl) {
  const { stderr } = await run(compiler, ['-E', '-v', '-x', 'c++', '/dev/null'])
  const own = [...stderr.matchAll(/^ (\/\S+)$/gm)].map(([, at]) => path.resolve(at)).filter((at) => /\/c\+\+\/|\/gcc(-cross)?\/.*\/include$/.test(at))
  const cpp = own.filter((at) => at.includes('/c++/'))
  const c = own.filter((at) => !at.includes('/c++/'))
  return ['-nostdinc', ...[...cpp, musl, ...c, kernelHeaders(folder, triplet)].flatMap((at) => ['-isystem', at]), '-include', path.join(top, 'native', 'musl.h')]
}

/** Each has what must be there to build it. */
const linux = [['x64', 'x86_64'], ['arm64', 'aarch64']].flatMap(([arch, machine]) => {
  const triplet = `${machine}-linux-gnu`
  const compiler = process.arch === arch ? 'g++' : `${triplet}-g++`
  const musl = `/usr/include/${machine}-linux-musl`
  return [
    { name: `linux-${arch}`, arch, compiler, flags: () => ['-include', path.join(top, 'native', 'glibc.h')], link: '-Wl,--no-as-needed -lc -lgcc' },
    // Without any DT_NEEDED: the names come from the libc that Node itself has loaded.
    { name: `linux-${arch}-musl`, arch, compiler, headers: musl, flags: (folder) => muslHeaders(compiler, folder, triplet, musl), link: '-lgcc' }
  ]
})
const targets = process.platform === 'linux' ? linux : [{ name: `${process.platform}-${process.arch}`, arch: process.arch }]

const fileOf = ({ name }) => path.join(top, 'packages', 'core', 'prebuilds', name, 'handover.node')
const sources = ['binding.gyp', ...readdirSync(path.join(top, 'native')).map((name) => `native/${name}`)]
const changed = Math.max(...sources.map((name) => statSync(path.join(top, name)).mtimeMs))
const isFresh = (target) => (statSync(fileOf(target), { throwIfNoEntry: false })?.mtimeMs ?? 0) > changed

async function lacks({ compiler, headers }) {
  if (compiler !== undefined && !(await run(compiler, ['--version']).then(() => true, () => false))) return compiler
  return headers !== undefined && !existsSync(headers) ? headers : undefined
}

async function build(target) {
  const { name, arch, compiler, flags, link } = target
  const folder = mkdtempSync(path.join(tmpdir(), `handover-${name}-`))
  try {
    for (const part of ['binding.gyp', 'native', 'package.json']) cpSync(path.join(top, part), path.join(folder, part), { recursive: true })
    symlinkSync(path.join(top, 'node_modules'), path.join(folder, 'node_modules'))
    const env = compiler === undefined ? process.env : {
      ...process.env, CXX: compiler, LINK: compiler, CC: compiler.replace(/g\+\+$/, 'gcc'),
      CXXFLAGS: (await flags(folder)).join(' ') + (arch === 'arm64' ? ' -mno-outline-atomics' : ''), LDFLAGS: link
    }
    const gyp = (command, ...more) => run(process.execPath, [nodeGyp, command, '--directory', folder, ...withHeaders, ...more], { cwd: folder, env })
    await gyp('configure', '--arch', arch, '--', '-Dprebuilt=true')
    await gyp('build')
    const file = fileOf(target)
    mkdirSync(path.dirname(file), { recursive: true })
    // At once: a test may be loading the one that was there, or packing it.
    const beside = `${file}.${process.pid}`
    copyFileSync(path.join(folder, 'build', 'Release', 'handover.node'), beside)
    renameSync(beside, file)
    console.error(`prebuild: ${path.relative(top, file)}, ${statSync(file).size} bytes`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

await Promise.all(targets.filter(({ name }) => wanted.length === 0 || wanted.includes(name)).map(async (target) => {
  if (isFresh(target)) return
  const missing = await lacks(target)
  if (missing === undefined) return await build(target)
  // Nor is one that was built from other sources left.
  rmSync(fileOf(target), { force: true })
  console.error(`prebuild: ${target.name} is not built: there is no ${missing} here`)
  if (!words.includes('--available') || target.arch === process.arch && !target.headers) process.exitCode = 1
}))
