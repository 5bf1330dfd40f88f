/**
 * Fastify's own tests, as its package has them: each that passes without the preload passes with it.
 *
 * By default those of listen and close; with HANDOVER_FOREIGN=all (`npm run foreign`) all that have to do with servers, connections and
 * the log.
 */

import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { runPlain, runPreloaded, type Ran } from './plain-and-preloaded.js'

const folder = path.dirname(createRequire(import.meta.url).resolve('fastify/package.json'))
const some = /^(listen\.\d|close|close-disposable|server|custom-http-server|hooks\.on-listen|async-dispose|upgrade|http2\/closing|http2\/secure-with-fallback|https\/custom-https-server)$/
const all = /^(listen\.\d|close.*|server|custom-http-server|hooks\.on-.*|async-dispose|upgrade|.*-timeout|max-requests-per-socket|fastify-instance|request-port|reply-early-hints|header-overflow|(http2|https|logger|diagnostics-channel)\/.*|internals\/(server|initial-config|logger))$/
const wanted = process.env['HANDOVER_FOREIGN'] === 'all' ? all : some

const files = readdirSync(path.join(folder, 'test'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.test.js') && wanted.test(file.slice(0, -'.test.js'.length)))
  .sort()

/** Each test of the file has passed, by Node's count at the end: one that did not come to its end is cancelled there. */
const havePassed = ({ stdout, status }: Ran): boolean =>
  status === 0 && /^# tests [1-9]/m.test(stdout) && ['fail', 'cancelled', 'skipped', 'todo'].every((word) => new RegExp(`^# ${word} 0$`, 'm').test(stdout))

/** The names of the tests that passed, in TAP. A name may be there more than once. */
const passed = (tap: string): string[] => tap.split('\n').filter((line) => /^ *ok \d+ - /.test(line)).map((line) => line.replace(/^( *)ok \d+ - /, '$1')).sort()

/** What passes plainly and not with the preload. Where all pass with it, there is no such test, and the plain run is spared. */
async function lost(file: string): Promise<{ compared: number; notWithThePreload: string[]; said: string }> {
  const words = ['--test-reporter=tap', path.join('test', file)]
  const preloaded = await runPreloaded(words, { cwd: folder })
  const left = passed(preloaded.stdout)
  if (havePassed(preloaded)) return { compared: left.length, notWithThePreload: [], said: '' }
  const passedPlainly = passed((await runPlain(words, { cwd: folder })).stdout)
  const notWithThePreload = passedPlainly.filter((name) => {
    const at = left.indexOf(name)
    if (at >= 0) left.splice(at, 1)
    return at < 0
  })
  const said = `${preloaded.stdout.split('\n').filter((line) => /not ok|error:|message:/.test(line)).join('\n')}\n${preloaded.stderr}`
  return { compared: passedPlainly.length, notWithThePreload, said }
}

describe('a test of Fastify that passes without the preload passes with it', () => {
  it('has its files', () => { expect(files.length).toBeGreaterThan(10) })

  it.each(files)('%s', { timeout: 180_000 }, async (file) => {
    let { compared, notWithThePreload, said } = await lost(file)
    // Some of these tests are of times, which a busy machine does not keep.
    if (notWithThePreload.length > 0) {
      console.warn(`RUN A SECOND TIME: ${file}, for ${notWithThePreload.join(', ')}\n${said}`)
      ;({ compared, notWithThePreload, said } = await lost(file))
    }
    expect(compared).toBeGreaterThan(0)
    expect(notWithThePreload, said).toEqual([])
  })
})
