/**
 * EventSource of Chromium on examples/events, which moves its event streams: the browser has one connection and one answer through all
 * reloads. A stream of HTTP/2 does not move, since its session has it: it ends, and EventSource comes back with Last-Event-ID.
 */

import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { Browser } from '../helpers/browser.js'
import { coreFile } from '../helpers/built.js'
import { Folder } from '../helpers/plan.js'
import { Program, programPath, waitFor } from '../helpers/program.js'

const { error } = spawnSync('chromium', ['--version'])
const example = fileURLToPath(new URL('../../examples/events/server.mjs', import.meta.url))

/** The example, on another kind of server. The setHeader() of http2 does not answer the response. */
const chained = 'const { prototype } = http.Http2ServerResponse, { setHeader } = prototype; prototype.setHeader = function (...header) { setHeader.apply(this, header); return this }'
const makers = {
  http: ['http', 'http.createServer(', ''],
  https: ['https', 'http.createServer(certificate(), ', ''],
  h2: ['http2', 'http.createSecureServer(certificate(), ', chained]
} as const
const certificateFile = JSON.stringify(pathToFileURL(programPath('certificate.mjs')).href)

interface Seen {
  readonly opens: number
  readonly errors: number
  readonly ids: readonly number[]
  readonly versions: readonly string[]
}

/** Run in the page before its own script. */
const watch = `
  window.seen = { opens: 0, errors: 0, ids: [], versions: [] }
  window.EventSource = class extends EventSource {
    constructor(url) {
      super(url)
      this.addEventListener('open', () => { seen.opens++ })
      this.addEventListener('error', () => { seen.errors++ })
      this.addEventListener('message', ({ data, lastEventId }) => {
        seen.ids.push(Number(lastEventId))
        const [, version] = /version (\\d+)/.exec(data)
        if (!seen.versions.includes(version)) seen.versions.push(version)
      })
    }
  }`

test.skipIf(error !== undefined).for(['http', 'https', 'h2'] as const)(`EventSource over %s misses no event of either version${error ? ' (skipped: no chromium here)' : ''}`, { timeout: 120_000 }, async (kind) => {
  const folder = new Folder()
  onTestFinished(() => { folder[Symbol.dispose]() })
  const [module, maker, more] = makers[kind]
  const reloads = kind === 'h2' ? 1 : 2
  const text = readFileSync(example, 'utf8').replace("'node:http'", `'node:${module}'\nimport { certificate } from ${certificateFile}\n${more}`)
    .replace('http.createServer(', maker).replace("'@handover/core'", JSON.stringify(pathToFileURL(coreFile).href))
  writeFileSync(folder.at('server.mjs'), text)
  writeFileSync(folder.at('version'), '1')
  const drainTimeout = kind === 'h2' ? '1500' : '30000'
  const program = Program.start(folder.at('server.mjs'), { env: {
    PORT: '0', EVERY_MS: '10', APP_VERSION_FILE: folder.at('version'), HANDOVER_UNDO_WINDOW: '100', HANDOVER_DRAIN_TIMEOUT: drainTimeout
  } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const line = await program.until(() => program.lines.find((said) => said.includes('listening')))
  const origin = `${kind === 'http' ? 'http' : 'https'}://127.0.0.1:${/port: (\d+)/.exec(line)?.[1]}`
  await using browser = await Browser.start(origin)
  await browser.send('Page.addScriptToEvaluateOnNewDocument', { source: watch })
  await browser.goTo(`${origin}/`)
  let seen: Seen
  const until = async (isSo: () => boolean): Promise<void> => waitFor(async () => {
    seen = await browser.evaluate<Seen>('seen')
    return isSo()
  })
  let { pid } = program
  for (let version = 1; version <= reloads + 1; version++) {
    await until(() => seen.versions.includes(String(version)) && seen.ids.length > version * 20)
    if (version > reloads) break
    writeFileSync(folder.at('version'), String(version + 1))
    process.kill(pid, 'SIGHUP')
    const [, successor] = await program.stderrMatching(new RegExp(`generation ${version + 1} \\(process (\\d+)\\) serves`))
    pid = Number(successor)
  }
  const { ids, opens, errors } = seen!
  expect(ids).toEqual(ids.map((_, index) => index))
  const answers = browser.answers.filter(({ path }) => path === '/events')
  expect(answers[0]!.protocol).toBe(kind === 'h2' ? 'h2' : 'http/1.1')
  const rounds = kind === 'h2' ? reloads : 0
  expect({ opens, errors, answers: answers.length }).toEqual({ opens: rounds + 1, errors: rounds, answers: rounds + 1 })
  expect(new Set(answers.map(({ connection }) => connection)).size).toBe(rounds + 1)
  // Beside it may be the connection that the page came by.
  if (kind !== 'h2') await program.stderrMatching(/generation 1 .* has ended: \d connections? moved, 0 drained, 0 closed idle, 0 cut/)
})
