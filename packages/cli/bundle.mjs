/**
 * Writes dist/bundle: main.js, the command; run.js, the keeper of `handover run`; and preload.js, which the keeper has its workers load.
 * Beside them the man page. `tsc --build` goes first: dist has the modules one by one for the unit tests.
 *
 * Both have in them what they use of core, and no more: to look through the whole text of core and of the keeper took V8 most of the time
 * of a `handover reload`. The preload loads core itself, as the program may.
 */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { build } from 'esbuild'
import { license, withoutCopies } from '../core/bundle-text.mjs'

const here = import.meta.dirname
const outdir = path.join(here, 'dist', 'bundle')

rmSync(outdir, { recursive: true, force: true })

const core = path.join(here, '../core/src')
/** Its only work is to be loaded. */
const acts = path.join(core, 'generation/start-times.ts')
const binaryFinder = path.join(core, 'platform/native-binary.ts')
const ownFolder = /^const here = .*$/m

const devalue = createRequire(path.join(core, 'index.ts')).resolve('devalue')

/** What is used of core goes in. The addon, and what else core starts, are those of the installed core. */
const withCore = {
  name: 'core',
  setup(builder) {
    builder.onResolve({ filter: /^@handover\/core\/internal$/ }, () => ({ path: path.join(core, 'internal.ts'), sideEffects: false }))
    builder.onResolve({ filter: /^\..*\.js$/ }, ({ path: name, resolveDir }) => {
      const file = path.resolve(resolveDir, name.replace(/\.js$/, '.ts'))
      return file.startsWith(core + path.sep) ? { path: file, sideEffects: file === acts } : undefined
    })
    builder.onResolve({ filter: /^devalue$/ }, () => ({ path: devalue }))
    builder.onLoad({ filter: /native-binary\.ts$/ }, () => {
      const text = readFileSync(binaryFinder, 'utf8')
      if (!ownFolder.test(text)) throw new Error(`${binaryFinder} says in another way where this code is`)
      // As Node finds it, but in a tenth of the time where there is a node_modules.
      const found = `const above = [...installed(__dirname)].find((folder) => existsSync(folder))
const here = path.join(above === undefined ? path.dirname(require.resolve(packageName + '/package.json')) : realpathSync(above), 'dist/bundle')`
      return { contents: text.replace(ownFolder, found), loader: 'ts' }
    })
  }
}

/** The keeper is a file of its own, which is loaded when it is the command. */
const withoutKeeper = {
  name: 'keeper',
  setup(builder) {
    builder.onResolve({ filter: /^\.\/commands\/run\.js$/ }, () => ({ path: './run.js', external: true }))
  }
}

async function write(name, entry, plugins) {
  const { outputFiles: [{ text }] } = await build({
    entryPoints: [path.join(here, entry)],
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    packages: 'external',
    // Comments are a third of the text, which stays in memory, and one letter outside of Latin-1 in them doubles it.
    minifyWhitespace: true,
    lineLimit: 140,
    legalComments: 'none',
    logLevel: 'warning',
    write: false,
    plugins
  })
  const head = text.includes('defaultStringifyOperations') ? `${license('devalue')}\n` : ''
  // Without Node's loader of ES modules.
  writeFileSync(path.join(outdir, name), head + withoutCopies(text).replace('import("./run.js")', 'require("./run.js")'))
}

mkdirSync(outdir, { recursive: true })
await write('main.js', 'src/main.ts', [withoutKeeper, withCore])
await write('run.js', 'src/commands/run.ts', [withCore])
await write('preload.js', 'src/preload.ts', [])

const { manPage } = createRequire(import.meta.url)('./dist/command-line/man-page.js')
const { version } = JSON.parse(readFileSync(path.join(here, 'package.json'), 'utf8'))
mkdirSync(path.join(here, 'man'), { recursive: true })
writeFileSync(path.join(here, 'man', 'handover.1'), manPage(version))
