/**
 * State in another version of Node. `write <seed> <count>`: the samples of that seed, one in a line: its text, or in V8's format where that takes it (base64, after
 * the version of V8). `read <seed> <count>`: takes such lines of any number of writers from stdin, and compares what they hold with the samples that it makes
 * itself; prints how many of both were the same.
 * `refuse <type>`: takes one line; prints whether this version knows the type, and the error.
 */

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { assertSame, samples } from '../helpers/values.mjs'

const { decodeState, encodeState } = createRequire(import.meta.url)('../../packages/core/dist/protocol/value-codec.js')
const { decodePlain, encodePlain } = createRequire(import.meta.url)('../../packages/core/dist/sharing/sections/plain-value.js')
const [what, first, count] = process.argv.slice(2)

// A stack names this program's own files and lines, which differ from version to version.
Error.stackTraceLimit = 0

const lines = what === 'write' ? [] : readFileSync(0, 'utf8').split('\n').slice(0, -1)

switch (what) {
  case 'write':
    process.stdout.write(samples(Number(first), Number(count)).flatMap((value) => {
      const plain = encodePlain(value, 0)
      return [encodeState(value, 'a sample'), plain ? `${process.versions.v8} ${plain.toString('base64')}` : '-'].map((line) => `${line}\n`)
    }).join(''))
    break
  case 'read': {
    const wanted = samples(Number(first), Number(count))
    let plain = 0
    for (const [index, line] of lines.entries()) {
      const sample = wanted[(index >> 1) % wanted.length]
      if (index % 2 === 0) assertSame(decodeState(line, 'a sample'), sample, `line ${index}`)
      const [v8, bytes] = line.split(' ')
      if (index % 2 === 0 || line === '-') continue
      plain++
      // More than readsPlain() allows: all of these versions have the same number for V8's format.
      assertSame(await decodePlain(Buffer.from(bytes, 'base64'), `a sample of ${v8}`, new AbortController().signal), sample, `line ${index}`)
    }
    console.log(JSON.stringify({ texts: lines.length / 2, plain }))
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
