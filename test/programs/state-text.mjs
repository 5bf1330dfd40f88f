/**
 * State as text in another version of Node. `write <seed> <count>`: the texts of the samples of that seed, one in a line. `read <seed> <count>`: takes such
 * lines of any number of writers from stdin, and compares what they hold with the samples that it makes itself; prints how many were the same.
 * `refuse <type>`: takes one line; prints whether this version knows the type, and the error.
 */

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { assertSame, samples } from '../helpers/values.mjs'

const { decodeState, encodeState } = createRequire(import.meta.url)('../../packages/core/dist/protocol/value-codec.js')
const [what, first, count] = process.argv.slice(2)

// A stack names this program's own files and lines, which differ from version to version.
Error.stackTraceLimit = 0

const lines = what === 'write' ? [] : readFileSync(0, 'utf8').split('\n').slice(0, -1)

switch (what) {
  case 'write':
    process.stdout.write(samples(Number(first), Number(count)).map((value) => `${encodeState(value, 'a sample')}\n`).join(''))
    break
  case 'read': {
    const wanted = samples(Number(first), Number(count))
    lines.forEach((line, index) => { assertSame(decodeState(line, 'a sample'), wanted[index % wanted.length], `line ${index}`) })
    console.log(lines.length)
    break
  }
  case 'refuse': {
    let error
    try {
      decodeState(lines[0], 'a sample')
    } catch (thrown) {
      error = String(thrown)
    }
    console.log(JSON.stringify({ version: process.version, known: first in globalThis, error }))
    break
  }
}
