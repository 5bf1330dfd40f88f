/**
 * Finds the binary of the addon, and other files of this package: in the package; or, where this code was bundled into a program's file,
 * beside that file, or in the package in a node_modules above it. Where it finds none, it says what to do.
 */

import { closeSync, existsSync, openSync, readFileSync, readSync, realpathSync } from 'node:fs'
import path from 'node:path'

/** With musl Node names its loader at the beginning of its own file: /lib/ld-musl-x86_64.so.1. */
function usesMusl(): boolean {
  if (process.platform !== 'linux') return false
  try {
    const fd = openSync('/proc/self/exe', 'r')
    const head = Buffer.alloc(4096)
    try {
      readSync(fd, head, 0, head.length, 0)
    } finally {
      closeSync(fd)
    }
    return head.includes('/ld-musl-')
  } catch {
    return false
  }
}

/** linux-x64 is for glibc; linux-x64-musl, darwin-arm64. */
const platform = `${process.platform}-${process.arch}${usesMusl() ? '-musl' : ''}`
/** The place of the binary in this package. */
export const prebuilt = `prebuilds/${platform}/handover.node`
const packageName = '@handover/core'

/** In an ES module that a bundler wrote there is no __dirname. */
const here = typeof __dirname === 'string' ? __dirname : path.dirname(process.argv[1] ?? path.join(process.cwd(), 'main.js'))

/** The workspace's own build goes first: what an earlier `npm pack` left in prebuilds may be older. */
const ofPackage = (folder: string): string[] =>
  [path.join(folder, '../..', 'build', 'Release', 'handover.node'), path.join(folder, prebuilt)]

function isPackage(folder: string): boolean {
  try {
    return (JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as { name?: unknown }).name === packageName
  } catch {
    return false
  }
}

/** Where Node looks for this package from this folder. */
function* installed(folder: string): Generator<string> {
  for (let above = folder; ; above = path.dirname(above)) {
    yield path.join(above, 'node_modules', packageName)
    if (above === path.dirname(above)) return
  }
}

const besideBundle = (folder: string): string[] => [
  path.join(folder, 'handover.node'), path.join(folder, prebuilt),
  ...[...installed(folder)].filter(isPackage).flatMap((found) => ofPackage(realpathSync(found)))
]

/** A built file of this package; undefined where this code was bundled. */
export function builtFile(name: string): string | undefined {
  const file = path.join(here, name)
  return isPackage(path.join(here, '../..')) && existsSync(file) ? file : undefined
}

/** The binary for code that runs from `folder`, an argument for tests. */
export function findBinary(
  folder = here
): { readonly file: string; readonly missing?: undefined } | { readonly file?: undefined; readonly missing: string } {
  const own = path.join(folder, '../..')
  const isBundled = !isPackage(own)
  const candidates = isBundled
    // Some bundlers replace __dirname.
    ? [...new Set([folder, path.dirname(process.argv[1] ?? folder)])].flatMap(besideBundle)
    : ofPackage(own)
  const file = candidates.find((candidate) => existsSync(candidate))
  if (file !== undefined) return { file }
  return { missing: isBundled
    ? `this code was bundled (it runs from ${folder}), and the addon of ${packageName} is neither beside it nor in a node_modules above it. Leave the packages of Handover out of the bundle ` +
      '(esbuild --external:@handover/*, external of rollup, externals of webpack, serverExternalPackages of Next, ncc --external) and install them beside it, ' +
      `or copy ${prebuilt} of ${packageName} beside the bundle`
    : `there is no binary for ${platform} in this package` }
}
