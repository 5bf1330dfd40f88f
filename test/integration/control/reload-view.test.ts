/** A reload as it is seen while it runs: on a real terminal (script(1) makes one), in a pipe, with --json. */

import { spawnSync } from 'node:child_process'
import { expect, it } from 'vitest'
import type { ReloadEvent } from '@handover/core/internal'
import { commandFile } from '../../helpers/built.js'
import { Keeping } from '../../helpers/keeping.js'
import { Place } from '../../helpers/command.js'

const hasTerminal = !spawnSync('script', ['--version']).error && process.platform === 'linux'

/** What the terminal of a reload gets. */
function seen(sockets: string, set: string): string {
  const { stdout } = spawnSync('script', ['-qec', `stty cols 40 rows 10; ${set} ${process.execPath} ${commandFile} reload --bake 500ms`, '/dev/null'], {
    env: { ...process.env, HANDOVER_DIR: sockets, NO_COLOR: '', TERM: 'xterm' }, encoding: 'utf8', timeout: 60_000
  })
  return stdout
}

it.skipIf(!hasTerminal)('a terminal sees a picture that is drawn again and again, no wider than it is, and in the end what is always said', async () => {
  await using app = await Keeping.start({ workers: 2 })
  const text = seen(app.sockets, '')
  expect(text).toMatch(/reload of kept · \d\.\d s/)
  expect(text).toContain('is watched: 0.')
  const drawings = text.split('\u001b[J')
  expect(drawings.length).toBeGreaterThan(3)
  // eslint-disable-next-line no-control-regex
  for (const line of drawings.slice(0, -1).flatMap((drawing) => drawing.split(/\r?\n/))) expect(line.replace(/\u001b\[\d*[A-Za-z]/g, '').trim().length).toBeLessThan(40)
  expect(drawings.at(-1)).toMatch(/^slot 0: generation 2 [^]+\nreloaded in \d+ (ms|s)\r?\n$/)
  expect(seen(app.sockets, 'NO_COLOR=1')).not.toMatch(/\u001b\[\d+m/) // eslint-disable-line no-control-regex
  const dumb = seen(app.sockets, 'TERM=dumb')
  expect(dumb).not.toContain('\u001b')
  expect(dumb).toMatch(/^slot 0: process \d+ \(generation 3\) hands over\r?\n/)
})

it('under a keeper --json tells each step of each slot, in order, and what a successor writes while it boots', async () => {
  await using app = await Keeping.start({ workers: 2, env: { HANDOVER_READY_TIMEOUT: '5000' } })
  const { stdout } = await app.run('reload', '--json', '--bake', '200ms', '--wait')
  const lines = stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as ReloadEvent | { ok: boolean })
  expect(lines.at(-1)).toMatchObject({ ok: true, switched: [{ slot: 0 }, { slot: 1 }] })
  const events = lines.slice(0, -1) as ReloadEvent[]
  for (const slot of [0, 1]) {
    const steps = events.filter((event) => event.slot === slot && event.event !== 'drains').map(({ event }) => event)
    expect([steps[0], steps[1], steps.at(-1)]).toEqual(['starts', 'boots', 'serves'])
  }
  expect(events).toContainEqual(expect.objectContaining({ event: 'bakes', forMs: 200 }))
  expect(events).toContainEqual(expect.objectContaining({ event: 'starts', slot: 1, slots: 2 }))
  expect(events.map(({ ms }) => ms)).toEqual(events.map(({ ms }) => ms).toSorted((a, b) => a - b))
  // It writes, and boots until it is killed.
  app.behave('manual')
  const failed = await app.run('reload', '--json')
  expect(failed.stdout).toMatch(/^\{"event":"stderr".*"line":"/m)
})

it('without a keeper, too', async () => {
  await using place = new Place()
  await place.start({ name: 'shop' })
  const { stdout } = await place.run('reload', '--json', '--bake', '100ms')
  const events = stdout.trimEnd().split('\n').map((line) => (JSON.parse(line) as ReloadEvent).event)
  expect(events.filter((event) => ['starts', 'boots', 'serves', 'bakes'].includes(event))).toEqual(['starts', 'boots', 'serves', 'bakes'])
})
