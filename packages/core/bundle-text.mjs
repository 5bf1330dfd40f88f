/** What the bundles of core and of the command have in common. */

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

/** For a default import esbuild copies all names of a module, forty times. Ours of Node's modules are used by that name alone. */
export function withoutCopies(text) {
  const others = []
  const body = text.replace(/([\w$]+)(\s*=\s*)__toESM\((require\("node:[\w/]+"\))\)/g, (_, name, equals, module) => {
    others.push(...text.match(new RegExp(`(?<![\\w$])${name.replaceAll('$', '\\$')}\\.\\s*(?!default(?![\\w$]))[\\w$]+`, 'g')) ?? [])
    return `${name}${equals}{default:${module}}`
  })
  if (others.length > 0) throw new Error(`a default import of a module of Node beside names: ${others.join(', ')}`)
  return body
}

/**
 * Strings in one piece: to keep lines short esbuild breaks them by a backslash at the end of a line. A bundler that indents what it takes in
 * (rollup) puts the indentation into such a string.
 */
export const withWholeStrings = (text) => text.replace(/(?<!\\)((?:\\\\)*)\\\n/g, '$1')

/** esbuild's list of exports takes what a program has added to Object.prototype for one of them, and throws. */
export const withOwnNames = (text) => text.replaceAll('for(var name in all)', 'for(var name of Object.keys(all))')

/** A comment for a file that has this package in it. */
export function license(name) {
  const folder = path.dirname(path.dirname(createRequire(import.meta.url).resolve(name)))
  const { version } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'))
  return `/*! ${name} ${version}, in this file:\n${readFileSync(path.join(folder, 'LICENSE'), 'utf8')}*/`
}
