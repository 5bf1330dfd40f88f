/**
 * `npm run pack [-- FOLDER]`: the tarballs of all packages, into tarballs/, with their sizes. Core's has each binary that can
 * be built here.
 */

import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import path from 'node:path'

const top = path.join(import.meta.dirname, '..')
/** Each after those that it depends on. */
export const packages = ['core', 'load', 'fastify', 'express', 'prom-client', 'cli']

const kilobytes = (bytes) => `${Math.round(bytes / 1000)} kB`

/** Prints the sizes; answers the tarballs in the order of `packages`. */
export function pack(out) {
  mkdirSync(out, { recursive: true })
  const told = execFileSync('npm', ['pack', '--json', '--pack-destination', out, ...packages.map((name) => `./packages/${name}`)], { cwd: top, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' })
  return JSON.parse(told).map(({ filename, size, unpackedSize, entryCount }) => {
    const file = path.join(out, filename)
    console.log(`${path.relative(process.cwd(), file).replace(/^\.\..*\//, '')}  ${kilobytes(size)}, unpacked ${kilobytes(unpackedSize)}, ${entryCount} files`)
    return file
  })
}

if (process.argv[1] === import.meta.filename) pack(path.resolve(process.argv[2] ?? path.join(top, 'tarballs')))
