/** What is seen of a keeper from outside: its metrics page, its log as JSON, and a worker that needs too much memory. */

import net from 'node:net'
import { expect, it } from 'vitest'
import { get } from '../../helpers/ask.js'
import { lastLine } from '../../helpers/command.js'
import { Keeping } from '../../helpers/keeping.js'
import { waitFor } from '../../helpers/program.js'

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

it('with --log json the keeper and its workers write their log as lines of JSON', async () => {
  await using app = await Keeping.start({ words: ['--log', 'json'] })
  await app.run('reload', '--bake', '0', '--wait')
  process.kill(app.program.pid, 'SIGHUP')
  await app.program.stderrMatching(/"message":"reloaded: /)
  const lines = app.program.stderr.split('\n').filter((line) => line.includes('handover')).map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(lines).toContainEqual({ time: expect.stringMatching(/^\d{4}-.*Z$/), level: 'info', name: 'handover', pid: app.program.pid, message: expect.stringMatching(/^reloaded: /) })
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
