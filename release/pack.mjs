/**
 * `npm run pack [-- FOLDER]`: the tarballs of all packages, into tarballs/, with their sizes. Core's has each binary that can
 * be built here.
 */

import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import path from 'node:path'

const top = path.join(import.meta.dirname, '..')
const out = path.resolve(process.argv[2] ?? path.join(top, 'tarballs'))
const packages = ['core', 'fastify', 'express', 'prom-client', 'load', 'cli']

mkdirSync(out, { recursive: true })
const told = execFileSync('npm', ['pack', '--json', '--pack-destination', out, ...packages.map((name) => `./packages/${name}`)], { cwd: top, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' })
const kilobytes = (bytes) => `${Math.round(bytes / 1000)} kB`
for (const { filename, size, unpackedSize, entryCount } of JSON.parse(told)) {
  console.log(`${path.join(path.relative(process.cwd(), out), filename)}  ${kilobytes(size)}, unpacked ${kilobytes(unpackedSize)}, ${entryCount} files`)
}
