/** What is seen of a keeper from outside: its metrics page, its log as JSON, and a worker that needs too much memory. */

import { chmodSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { expect, it } from 'vitest'
import { freePorts, get } from '../../helpers/ask.js'
import { lastLine } from '../../helpers/command.js'
import { Keeping } from '../../helpers/keeping.js'
import { KeptApp } from '../../helpers/kept-app.js'
import { Program, programPath, waitFor } from '../../helpers/program.js'

const portOf = async (app: Keeping): Promise<number> => Number((await app.program.stderrMatching(/metrics at http:\/\/127\.0\.0\.1:(\d+)\/metrics/))[1])

async function scraped(port: number): Promise<Map<string, number>> {
  const { status, body } = await get({ port }, '/metrics')
  expect(status).toBe(200)
  const lines = String(body).trimEnd().split('\n')
  for (const line of lines) expect(line).toMatch(/^(# (HELP|TYPE) handover_[a-z_]+ .+|handover_[a-z_]+(\{([a-z]+="[^"\n]*",?)+\})? [0-9.e+-]+)$/)
  return new Map(lines.filter((line) => !line.startsWith('#')).map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]))
}

it('counts reloads, failures by their code, crashes, and what became of connections', async () => {
  await using app = await Keeping.start({ workers: 2, words: ['--metrics', '0'] })
  const port = await portOf(app)
  expect(await scraped(port)).toEqual(expect.objectContaining({}))
  expect((await app.run('reload', '--bake', '0', '--wait')).status).toBe(0)
  const after = await scraped(port)
  expect(after.get('handover_reloads_total{result="ok"}')).toBe(1)
  expect(after.get('handover_reload_duration_seconds_count')).toBe(1)
  expect(after.get('handover_phase_duration_seconds_count{phase="launch"}')).toBe(2)
  expect(after.get('handover_phase_duration_seconds_bucket{phase="launch",le="+Inf"}')).toBe(2)
  expect(after.get('handover_processes{state="serving"}')).toBe(2)
  expect(after.get('handover_generation{slot="1"}')).toBe(2)
  expect([...after.keys()].filter((name) => name.startsWith('handover_connections_total'))).toHaveLength(4)
  app.behave('throw')
  const failed = await app.run('reload', '--json')
  const { error } = lastLine(failed.stdout) as { error: { code: string } }
  expect((await scraped(port)).get(`handover_reload_failures_total{code="${error.code}"}`)).toBe(1)
  app.behave('ok')
  const [first] = await app.serves()
  process.kill(first!, 'SIGKILL')
  await waitFor(async () => (await scraped(port)).get('handover_crashes_total') === 1)
})

/** Of what may only grow: what is less now, or gone. */
const backwards = (before: Map<string, number>, after: Map<string, number>): string[] =>
  [...before].filter(([name, value]) => /_(total|bucket|sum|count)(\{|$)/.test(name) && (after.get(name) ?? -1) < value).map(([name, value]) => `${name}: ${value}, ${after.get(name)}`)

/** A keeper that has just come, or come back, binds the port anew. */
async function scrapedSoon(port: number): Promise<Map<string, number>> {
  let found: Map<string, number> | undefined
  await waitFor(async () => {
    found = await scraped(port).catch(() => undefined)
    return found !== undefined
  })
  return found!
}

it('what was counted goes along to the next keeper, and nothing runs backwards', async () => {
  const [port = 0] = await freePorts(1)
  await using app = await Keeping.start({ workers: 2, words: ['--metrics', String(port)] })
  expect((await app.run('reload', '--bake', '0', '--wait')).status).toBe(0)
  app.behave('throw')
  expect((await app.run('reload')).status).toBe(1)
  app.behave('ok')
  const [first] = await app.serves()
  process.kill(first!, 'SIGKILL')
  await waitFor(async () => (await scraped(port)).get('handover_crashes_total') === 1)
  await app.serves()
  let before = await scraped(port)
  for (let keeper = 1; keeper <= 2; keeper++) {
    expect(await app.run('reload', '--keeper')).toMatchObject({ status: 0 })
    const after = await scrapedSoon(port)
    expect(backwards(before, after)).toEqual([])
    expect(after.get('handover_reloads_total{result="ok"}')).toBe(1 + keeper)
    expect(after.get('handover_reload_duration_seconds_count')).toBe(1 + keeper)
    expect(after.get('handover_crashes_total')).toBe(1)
    before = after
  }
  expect((await app.run('reload', '--bake', '0', '--wait')).status).toBe(0)
  const last = await scraped(port)
  expect(backwards(before, last)).toEqual([])
  expect(last.get('handover_phase_duration_seconds_count{phase="commit"}')).toBe(4)
})

it('a keeper whose next one dies at the last moment counts on, with that failure', async () => {
  const [port = 0] = await freePorts(1)
  await using place = await KeptApp.start(programPath('kept.mjs'), { name: 'place' })
  const node = path.join(place.folder, 'node')
  symlinkSync(process.execPath, node)
  writeFileSync(path.join(place.folder, 'dies.cjs'), 'require("node:fs").readdirSync = () => process.exit(9)\n')
  await using app = await KeptApp.start(programPath('kept.mjs'), { node, run: ['--metrics', String(port)], env: { REAL_NODE: process.execPath, KEPT_FOLDER: place.folder } })
  await app.reload('--bake', '0', '--wait')
  const before = await scraped(port)
  rmSync(node)
  writeFileSync(node, '#!/bin/sh\nexec "$REAL_NODE" --require "$KEPT_FOLDER/dies.cjs" "$@"\n')
  chmodSync(node, 0o755)
  expect(await app.reload('--keeper')).toMatchObject({ ok: false })
  const after = await scrapedSoon(port)
  expect(backwards(before, after)).toEqual([])
  expect(after.get('handover_reloads_total{result="ok"}')).toBe(1)
  expect(after.get('handover_reload_failures_total{code="HANDOVER_SUCCESSOR_FAILED"}')).toBe(1)
})

it('the page answers what it is asked, and nothing else; garbage and silence hurt nobody', async () => {
  await using app = await Keeping.start({ words: ['--metrics', '127.0.0.1:0'] })
  const port = await portOf(app)
  expect(await get({ port }, '/secret')).toMatchObject({ status: 404 })
  const garbage = net.connect(port, '127.0.0.1')
  let answer = ''
  garbage.on('data', (chunk) => { answer += String(chunk) }).end('\u0000\u0001\r\n\r\n')
  await new Promise((resolve) => garbage.once('close', resolve))
  expect(answer).toMatch(/^HTTP\/1\.1 400 /)
  const silent = net.connect(port, '127.0.0.1')
  await new Promise((resolve) => silent.once('connect', resolve))
  await scraped(port)
  silent.destroy()
})

/** Every line that is not the program's own. */
const logged = (stderr: string): Record<string, unknown>[] => stderr.split('\n').filter((text) => text.includes('handover')).map((text) => JSON.parse(text) as Record<string, unknown>)
const line = (pid: number, message: unknown): object => ({ time: expect.stringMatching(/^\d{4}-.*Z$/), level: expect.stringMatching(/^(info|warn|error)$/), name: 'handover', pid, message })

it('with --log json the keeper and its workers write their log as lines of JSON', async () => {
  await using app = await Keeping.start({ words: ['--log', 'json'] })
  const [worker] = await app.serves()
  await app.run('reload', '--bake', '0', '--wait')
  process.kill(app.program.pid, 'SIGHUP')
  await app.program.stderrMatching(/"message":"reloaded: /)
  const lines = logged(app.program.stderr)
  expect(lines).toContainEqual(line(app.program.pid, expect.stringMatching(/^reloaded: /)))
  expect(lines).toContainEqual(line(worker!, expect.stringMatching(/^generation 2 .* serves; /)))
})

it('HANDOVER_LOG=json does the same without a keeper, for every generation', async () => {
  await using program = Program.start(programPath('server.mjs'), { env: { HANDOVER_LOG: 'json' } })
  await program.event('listening')
  await program.hangUp()
  const { pid: second } = await program.hangUp()
  // The event comes before the line.
  await program.stderrMatching(/"message":"generation 3 /)
  const lines = logged(program.stderr)
  for (const pid of [program.pid, second]) expect(lines).toContainEqual(line(pid, expect.stringMatching(/^generation \d .* serves; /)))
})

it('a worker above --max-memory hands over to the next one, and is not killed', async () => {
  await using app = await Keeping.start({ words: ['--max-memory', '1M'] })
  const [first] = await app.serves()
  await app.program.stderrMatching(/has \d+ MB of memory, more than --max-memory \(1 MB\): its slot is reloaded/)
  await waitFor(async () => {
    const [now] = await app.serves()
    return now !== undefined && now !== first
  })
  expect(app.program.stderr).not.toContain('ended by')
})
