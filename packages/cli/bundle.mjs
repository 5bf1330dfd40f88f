/**
 * Writes dist/bundle: the command in one file, in which a command is evaluated when it is the one that was typed, and the preload of
 * `handover run` beside it; and the man page. `tsc --build` goes first: dist has the modules one by one for the unit tests.
 */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { buildSync } from 'esbuild'

const here = import.meta.dirname
const outdir = path.join(here, 'dist', 'bundle')

rmSync(outdir, { recursive: true, force: true })
buildSync({
  entryPoints: [path.join(here, 'src/main.ts'), path.join(here, 'src/preload.ts')],
  outdir,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  packages: 'external',
  // Comments are a third of the text, which stays in memory, and one letter outside of Latin-1 in them doubles it.
  minifyWhitespace: true,
  lineLimit: 140,
  legalComments: 'none',
  logLevel: 'warning'
})

const { manPage } = createRequire(import.meta.url)('./dist/command-line/man-page.js')
const { version } = JSON.parse(readFileSync(path.join(here, 'package.json'), 'utf8'))
mkdirSync(path.join(here, 'man'), { recursive: true })
writeFileSync(path.join(here, 'man', 'handover.1'), manPage(version))
