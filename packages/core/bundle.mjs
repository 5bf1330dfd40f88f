/**
 * Writes dist/bundle: all of core in one file, and one small file for each entry of the package. A hundred small files cost a program that
 * requires them more time than what is in them. A module is evaluated when the first entry that needs it is loaded. An entry has the code
 * that looks for V8's compiled form of the one file.
 *
 * `tsc --build` goes first: dist has the types, and the modules one by one for the unit tests.
 */

import { createHash } from 'node:crypto'
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { buildSync } from 'esbuild'
import { license, withOwnNames, withoutCopies, withWholeStrings } from './bundle-text.mjs'

const here = import.meta.dirname
const out = path.join(here, 'dist', 'bundle')
const entries = { index: './src/index.ts', fd: './src/fd/index.ts', ws: './src/websocket/index.ts', guard: './src/platform/guard.ts' }

/** The command loads a few words of `internal` to ask a question, and all of it to be a keeper: each comes from its module when it is used. */
function internal() {
  const getters = {}
  const reexport = /^export \{([^}]*)\} from '(.*)\.js'$/gm
  const source = readFileSync(path.join(here, 'src/internal.ts'), 'utf8')
  const other = source.replace(reexport, '').replace(/^export type \* from .*$/gm, '').replace(/^export type \{[^}]*\} from .*$/gm, '').replace(/\/\*\*.*?\*\//gs, '').trim()
  if (other !== '') throw new Error(`src/internal.ts re-exports by name and does nothing else, but: ${other}`)
  for (const [, names, from] of source.matchAll(reexport)) {
    for (const name of names.split(',').map((word) => word.trim()).filter((word) => word !== '' && !word.startsWith('type '))) {
      getters[name] = `get ${name}() { return keep(this, '${name}', require(${JSON.stringify(`./src/${from.slice(2)}.ts`)}).${name}) }`
    }
  }
  return getters
}

const getters = internal()

rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })
const contents = [
  // A require of esbuild makes a new object each time.
  'const keep = (of, name, value) => { Object.defineProperty(of, name, { value, enumerable: true }); return value }',
  ...Object.entries(entries).map(([name, file]) => `exports.${name} = () => require(${JSON.stringify(file)})`),
  `exports.internal = () => ({ ${Object.values(getters).join(',\n')} })`
].join('\n')

/** The text of a bundle. Comments are a third of it, which stays in memory, and one letter outside of Latin-1 in them doubles it. */
function bundle(options) {
  const { outputFiles: [{ text }] } = buildSync({
    bundle: true, platform: 'node', format: 'cjs', target: 'node20', minifyWhitespace: true, lineLimit: 140, legalComments: 'none', logLevel: 'warning', write: false, ...options
  })
  return withOwnNames(withWholeStrings(withoutCopies(text)))
}

/** It requires modules of Node alone. */
function withoutRequire(text) {
  const body = text.replaceAll(/(?<![\w$.])require\("(node:[\w/]+)"\)/g, 'process.getBuiltinModule("$1")')
  if (/(?<![\w$.])require\(/.test(body)) throw new Error('core.js requires what is not a module of Node: as a script it cannot')
  return body
}

const text = bundle({
  stdin: { contents, resolveDir: here, loader: 'js' },
  // Not from node_modules: finding and linking an ES module held the loop up for 10 ms, in the middle of each reload.
  banner: { js: license('devalue') }
})
/** Of this build: an entry takes no other file for its own. */
const mark = `/*! @handover/core ${createHash('sha256').update(text).digest('hex').slice(0, 20)} */`
/**
 * One expression, a function, for compiled-code.ts, which runs it as a script: V8 has no copy of the text in a module's wrapper then. As a
 * module of CommonJS it runs at once. `require` would be a parameter in one of the two, and bundlers do not follow that.
 */
const whole = `${mark}
((run) => typeof module === 'undefined' || module === globalThis.module ? run
  : run(exports, typeof __dirname === 'string' ? __dirname : undefined))((exports, __dirname) => {
${withoutRequire(text)}})
`
writeFileSync(path.join(out, 'core.js'), whole)
// Without esbuild's list of names for imports: they are not the entry's.
const compiled = bundle({ entryPoints: [path.join(here, 'src/platform/compiled-code.ts')] }).replace(/0\s*&&\s*\(module\.exports\s*=[^)]*\);?/, '')
for (const name of [...Object.keys(entries), 'internal']) {
  // In steps: where a module of ES imports it, Node looks through all that is re-exported for names, here half a megabyte.
  writeFileSync(path.join(out, `${name}.js`),
    `const compiled = {};((module) => {${compiled}})(compiled)
const core = compiled.exports.loadCompiled(module, '${mark}') ?? require('./core.js')
module.exports = core.${name}()\n`)
}
// For import of names from it: never run, but read by Node.
appendFileSync(path.join(out, 'internal.js'), `0 && (module.exports = { ${Object.keys(getters).join(', ')} })\n`)
for (const name of ['index', 'fd', 'ws']) {
  const { metafile: { outputs } } = buildSync({ entryPoints: [path.join(here, entries[name])], bundle: true, platform: 'node', format: 'esm', packages: 'external', write: false, metafile: true, outdir: out })
  const names = Object.values(outputs)[0].exports
  writeFileSync(path.join(out, `${name}.mjs`), `import entry from './${name}.js'\nexport const { ${names.join(', ')} } = entry\n`)
}
