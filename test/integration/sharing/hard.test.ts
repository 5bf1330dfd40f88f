/** share() where a reload is odd: without state, many sections, long reasons, several generations at once, no older generation at all. */

import { afterEach, describe, expect, it } from 'vitest'
import { startLoad } from '@handover/load'
import { holdsListener, nothingIsWritten, nothingLost } from '../../helpers/invariants.js'
import { descriptorsOf, Program, programPath, waitFor } from '../../helpers/program.js'
import { Sharing } from '../../helpers/sharing.js'

const light = { keepAlive: { clients: 2, thinkMs: 10 }, newConnections: { clients: 1, thinkMs: 10 }, answerTimeoutMs: 30_000 }

let app: Sharing | undefined
afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  app = undefined
})

const pidOf = ({ program }: Sharing, generation: number): number =>
  program.events.find((event) => event.generation === generation)?.pid ?? 0
const socketsOf = (pid: number): number => [...descriptorsOf(pid).values()].filter((to) => to.startsWith('socket')).length

describe('a final section', () => {
  it('does not go to a successor that was to begin without state', async () => {
    app = await Sharing.start(`handover.share('thing', { final: true, save: () => 1, restore: (value, { phase }) => { memory[phase] = value } })
      routes['/fresh'] = () => { void handover.reload({ withoutState: true }); return {} }`, { load: false })
    await app.get('/fresh')
    await app.program.event('report', ({ generation, report }) => generation === 2 && (report as { result: string }).result === 'drained')
    const { body, generation } = await app.get('/memory')
    expect({ generation, offer: body['offer'], final: body['final'] }).toEqual({ generation: 2 })
  })

  it.each([true, false])('comes through all generations that drain, where connections move (%s) or not', async (move) => {
    app = await Sharing.start(`
      handover.share('list', { final: true, save: () => memory.list ?? [], restore: (value) => { memory.list = value }, merge: (value) => { memory.list = [...new Set([...(memory.list ?? []), ...value])] } })
      routes['/add'] = () => { memory.list = [...(memory.list ?? []), 'late of ' + handover.generation]; return {} }
      const waiting = []
      handover.peer.on('finish', () => { for (const done of waiting) done() })
      routes['/hold'] = () => new Promise((done) => { print('held'); waiting.push(() => { memory.list = [...(memory.list ?? []), 'late of ' + handover.generation]; done({}) }) })
      routes['/finish'] = () => ({ sent: handover.peer.send('finish', null, 'predecessor') })
      handover.peer.on('older', () => { handover.peer.send('finish', null, 'predecessor') })
      routes['/finish-oldest'] = () => ({ sent: handover.peer.send('older', null, 'predecessor') })`, { load: false, options: { move } })
    const first = app.get('/hold')
    await app.program.event('held', ({ generation }) => generation === 1)
    await app.reload()
    const second = app.get('/hold')
    await app.program.event('held', ({ generation }) => generation === 2)
    await app.reload()
    const middle = pidOf(app, 2)
    const { port } = app.target
    await waitFor(() => !holdsListener(middle, port))
    const before = socketsOf(middle)
    await app.get('/finish')
    await second
    // The undo window is over, and the connection closed: it has nothing to do any more.
    await waitFor(() => socketsOf(middle) < before)
    await app.get('/finish-oldest')
    await first
    await app.program.event('report', ({ generation, report }) => generation === 3 && (report as { result: string }).result === 'drained')
    expect((await app.get('/memory')).body['list']).toEqual(expect.arrayContaining(['late of 1', 'late of 2']))
  })

  it('does not overwrite what a version has done since in which the section is not final', async () => {
    app = await Sharing.start(`handover.share('thing', { final: true, save: () => 'of the first' })`, { load: false })
    await app.reload(`handover.share('thing', { restore: (value, { phase }) => { memory[phase] = value } })`)
    await app.program.stderrMatching(/added to section "thing" at last is lost: this program has neither merge nor a final restore there/)
    expect((await app.get('/memory')).body).toMatchObject({ offer: 'of the first' })
    expect((await app.get('/memory')).body['final']).toBeUndefined()
  })

  it('that hangs ends with the drain deadline, and the process ends', async () => {
    app = await Sharing.start(`handover.share('thing', { final: true, save: ({ phase }) => phase === 'final' ? new Promise(() => undefined) : 1, restore: (value, { phase }) => { memory[phase] = value } })`, { load: false, options: { drainTimeout: 1500 } })
    const { pid } = app.program
    await app.reload()
    await app.program.stderrMatching(/added to section "thing" at last does not go to the successor: .*deadline/)
    await waitFor(() => !app!.program.alive.includes(pid))
    expect((await app.get('/memory')).body).toMatchObject({ offer: 1 })
  })
})

describe('a sum whose own() hangs', () => {
  const hangs = `let asked = 0; handover.aggregate('hung', { own: () => ++asked > 1 ? new Promise(() => undefined) : 7, add: (a, b) => a + b })`

  it('ends with the drain deadline, goes on as it was last known, and holds up no other', async () => {
    app = await Sharing.start(`${hangs}; let other = 1; handover.aggregate('other', { own: () => other++, add: (a, b) => a + b })`, { load: false, options: { drainTimeout: 1500 } })
    const { pid } = app.program
    await app.reload(`
      const [hung, other] = ['hung', 'other'].map((name) => handover.aggregate(name, { own: () => 100, add: (a, b) => a + b }))
      routes['/totals'] = async () => ({ hung: await hung.total(), other: await other.total() })`)
    await app.program.stderrMatching(/what this process counted as "hung" since it was last asked is lost: own\(\) of aggregate\(\) did not answer before the drain deadline/)
    await waitFor(() => !app!.program.alive.includes(pid))
    expect((await app.get('/totals')).body).toMatchObject({ hung: 107, other: 102 })
    expect(app.program.stderr).not.toContain('"other"')
  })

  it('does not keep a process from its end that nobody comes after', async () => {
    app = await Sharing.start(hangs.replace('> 1', '> 0'), { load: false })
    process.kill(app.program.pid, 'SIGTERM')
    expect(await app.program.ended).toEqual({ code: 0, signal: null })
  })
})

describe('many sections', () => {
  it('go to a successor that does not read for a while', async () => {
    app = await Sharing.start(`
      for (let index = 0; index < 600; index++) handover.share('part ' + index, { save: () => index, restore: (value) => { memory.sum = (memory.sum ?? 0) + value } })
      server.once('listening', () => { if (handover.generation > 1) { const end = Date.now() + 1500; while (Date.now() < end); } })`, { load: light })
    const { restored, failed } = await app.reload()
    expect(failed).toEqual([])
    expect(restored).toHaveLength(600)
    expect((await app.get('/memory')).body['sum']).toBe(179_700)
    nothingLost(await app.loadResult())
  })

  it('that fail each with a long reason are all reported, and there may be a thousand', async () => {
    const all = (section: string): string => `for (let index = 0; index < 1_000; index++) handover.share('part ' + index, ${section})`
    app = await Sharing.start(`${all('{ save: () => index }')}
      try { handover.share('one more', { save: () => 1 }) } catch ({ code, message }) { memory.refused = { code, message } }`, { load: false })
    expect((await app.get('/memory')).body['refused']).toMatchObject({ code: 'HANDOVER_OPTION', message: expect.stringContaining('there may be 1000') as string })
    const { failed } = await app.reload(all(`{ optional: true, restore() { throw new Error(index + ' ' + 'x'.repeat(2_000)) } }`))
    expect(failed).toHaveLength(1_000)
    expect(failed[7]).toEqual({ name: 'part 7', reason: `7 ${'x'.repeat(198)} …` })
    const [line] = await app.program.stderrMatching(/1 listener kept.*not restored: part 0 .*and \d+ more; launch.*$/m)
    expect(line.length).toBeLessThan(2_500)
  })

  it('may have any name', async () => {
    app = await Sharing.start(`
      memory.names = []
      for (const name of ['__proto__', 'constructor', 'a\\nb', 'nul \\0', '漢'.repeat(128), '"quoted"', '%s ../x', ' ']) handover.share(name, { save: () => ({ name }), restore: (value) => { memory.names.push(value.name === name) } })`, { load: false })
    expect((await app.reload()).restored).toHaveLength(8)
    expect((await app.get('/memory')).body['names']).toEqual(Array(8).fill(true))
  })
})

describe('a very long reason', () => {
  it('of save refuses the reload, and is cut', async () => {
    app = await Sharing.start(`handover.share('thing', { save: () => { throw new Error('too long: ' + 'x'.repeat(3_000_000)) }, restore() {} })`, { load: light })
    const { pid } = app.program
    const failed = await app.fails()
    expect({ code: failed['code'], pid: (await app.get('/memory')).pid }).toEqual({ code: 'HANDOVER_STATE', pid })
    expect(app.program.events.filter(({ generation, event, to }) => generation === 2 && event === 'state' && to === 'serving')).toEqual([])
    nothingLost(await app.loadResult())
  })

  it('of restore refuses the reload, and is none where the section is optional', async () => {
    app = await Sharing.start(`handover.share('thing', { save: () => 1 })`, { load: light })
    const restore = `restore() { throw new Error('too long: ' + 'x'.repeat(3_000_000)) }`
    expect((await app.fails(`handover.share('thing', { ${restore} })`))['code']).toBe('HANDOVER_STATE')
    const { failed } = await app.reload(`handover.share('thing', { optional: true, ${restore} })`)
    expect(failed[0]?.reason).toMatch(/^too long/)
    nothingLost(await app.loadResult())
  })
})

describe('a stream that save() answers too late', () => {
  it.each([
    ['a Readable', `const stream = require('node:fs').createReadStream('/dev/zero'); stream.once('close', () => print('closed')); return stream`],
    ['an iterator of its own', `return { next: () => ({ value: 1 }), return: () => { print('closed'); return {} }, [Symbol.asyncIterator]() { return this } }`]
  ])('is told that nobody wants it: %s', async (_what, code) => {
    app = await Sharing.start(`
      const { createRequire } = await import('node:module')
      const require = createRequire(process.argv[1])
      handover.share('thing', { timeout: 50, save: async ({ signal }) => { await new Promise((done) => signal.addEventListener('abort', () => setTimeout(done, 50))); ${code} }, restore() {} })`, { load: false })
    const { pid } = app.program
    await app.fails()
    await app.program.event('closed')
    await waitFor(() => ![...descriptorsOf(pid).values()].includes('/dev/zero'))
  })
})

describe('share() in the successor', () => {
  it('comes early enough before ready(), where readyWhen is manual', async () => {
    app = await Sharing.start(`
      server.once('listening', () => setTimeout(() => {
        handover.share('thing', { save: () => 'late', restore: async (value) => { await new Promise(setImmediate); memory.value = value } })
        handover.ready()
        print('shared')
      }, 100))`, { load: light, options: { readyWhen: 'manual' } })
    await app.program.event('shared')
    expect((await app.reload()).restored).toEqual(['thing'])
    expect((await app.get('/memory')).body['value']).toBe('late')
    nothingLost(await app.loadResult())
  })
})

describe('peer.send()', () => {
  it('answers false when the successor has died while this process drains', async () => {
    app = await Sharing.start(`
      handover.events.on('draining', () => { const timer = setInterval(() => { if (handover.peer.send('tick', 1) === false) { clearInterval(timer); print('nobody') } }, 10) })
      routes['/hold'] = () => new Promise(() => { print('held') })`, { load: false })
    void app.get('/hold').catch(() => undefined)
    await app.program.event('held')
    const { program: { pid }, target: { port } } = app
    await app.reload()
    // The undo window is over when its copy of the listener is closed.
    await waitFor(() => !holdsListener(pid, port))
    process.kill(app.program.serving, 'SIGKILL')
    await app.program.event('nobody', ({ generation }) => generation === 1)
    // It was not undone.
    expect(app.program.events.filter(({ event }) => event === 'failed')).toEqual([])
  })
})

describe('a reload that is given up', () => {
  it('by stop() while a section is saved ends at once', async () => {
    app = await Sharing.start(`handover.share('thing', { save: ({ signal }) => { print('saving'); signal.addEventListener('abort', () => print('aborted')); return new Promise(() => undefined) }, restore() {} })`, { load: false })
    process.kill(app.program.pid, 'SIGHUP')
    await app.program.event('saving')
    process.kill(app.program.pid, 'SIGHUP')
    await app.program.stderrMatching(/HANDOVER_RELOAD_RUNNING/)
    process.kill(app.program.pid, 'SIGTERM')
    await app.program.event('aborted')
    expect(await app.program.ended).toEqual({ code: 0, signal: null })
    await waitFor(() => app!.program.alive.length === 0)
  })
})

describe('a predecessor that serves again', () => {
  it('goes on with its own state, and hands it to the next successor', async () => {
    app = await Sharing.start(`
      handover.share('count', { final: true, save: () => memory.counted, restore: (value) => { memory.counted = value } })
      routes['/neighbours'] = () => ({ sent: handover.peer.send('hello', 1) })`, { load: false, options: { undoWindow: 20_000 } })
    const { pid } = app.program
    await app.get('/count')
    await app.reload()
    await app.get('/count')
    process.kill(app.program.serving, 'SIGKILL')
    await app.program.event('failed', ({ code }) => code === 'HANDOVER_UNDONE')
    expect(await app.get('/count')).toMatchObject({ pid, body: { counted: 2 } })
    expect((await app.get('/neighbours')).body['sent']).toBe(false)
    await app.reload()
    expect((await app.get('/memory')).body['counted']).toBe(2)
    expect((await app.get('/neighbours')).body['sent']).toBe(true)
  })
})

describe('a process that is started by hand under the same name', () => {
  it('gets the state of the one that serves, and hears what it adds at last', async () => {
    app = await Sharing.start(`handover.share('thing', { final: true, save: ({ phase }) => 'of ' + handover.generation + ' ' + phase, restore: (value, { phase }) => { memory[phase] = value; print('restored', { phase }) } })`, { load: false, env: { HANDOVER_NAME: 'state-by-hand' } })
    await using second = Program.start(programPath('state.mjs'), { env: { HANDOVER_DIR: app.folder, APP: `${app.folder}/app.mjs`, HANDOVER_NAME: 'state-by-hand', PORT: String((app.target as { port: number }).port) } })
    await second.event('restored', ({ phase }) => phase === 'final')
    expect(await app.program.ended).toEqual({ code: 0, signal: null })
    expect(await app.get('/memory')).toMatchObject({ pid: second.pid, generation: 2, body: { offer: 'of 1 offer', final: 'of 1 final' } })
  })
})

describe('the service', () => {
  it('began once, and has counted each request of all its generations once', async () => {
    app = await Sharing.start('', { load: false })
    let sent = 0
    const service = async (): Promise<Record<string, unknown>> => {
      sent++
      return (await app!.get('/service')).body
    }
    const { startedAt } = await service()
    for (let generation = 2; generation <= 4; generation++) {
      await app.reload()
      for (let count = 0; count < 5; count++) await service()
    }
    await waitFor(async () => (await service())['requests'] === sent)
    expect(await service()).toMatchObject({ startedAt, generation: 4, requests: sent })
  })
})

describe('where Handover is switched off', () => {
  it('share(), peer, aggregate() and service may be used all the same, and anew for each app that a test makes', async () => {
    app = await Sharing.start(`
      let sum
      for (const own of [1, 2, 3]) {
        handover.share('thing', { checkpoint: 10, save: () => 1, restore() {} })
        sum = handover.aggregate('sum', { own: () => own, add: (a, b) => a + b })
        handover.onMoved('chat', () => undefined)
      }
      routes['/off'] = async () => ({ sum: await sum.total(), sent: handover.peer.send('hello', 1), service: handover.service, state: handover.state })`, { load: false, env: { HANDOVER: 'off' } })
    const { body: first } = await app.get('/off')
    const { body: second } = await app.get('/off')
    expect(second).toMatchObject({ sum: 3, sent: false, state: 'idle', service: { generation: 1, startedAt: (first['service'] as { startedAt: string }).startedAt } })
    expect(app.program.stderr).toBe('')
  })
})

describe('one reload after the other', () => {
  it('with finals, streams, unclaimed and failing sections and large messages in both directions leak no descriptor under hundreds of connections', async () => {
    const code = (generation: number): string => `
      handover.share('thing', { final: true, save: () => 'x'.repeat(100_000), restore() {}, merge() {} })
      handover.share('stream', { async *save() { for (let index = 0; index < 100; index++) yield { index } }, async restore(items) { for await (const item of items) if (item.index === 50) break } })
      handover.share('only in ${generation}', { save: () => 1 })
      handover.share('optional', { optional: true, save: () => { throw new Error('no') }, restore() {} })
      memory.heard = { predecessor: 0, successor: 0 }
      handover.peer.on('large', (value, { from }) => { if (value.text.length === 200000) memory.heard[from]++; print('large', { from }) })
      const send = (to) => { for (let index = 0; index < 20; index++) handover.peer.send('large', { index, text: 'y'.repeat(200000) }, to) }
      handover.events.on('draining', () => send('successor'))
      handover.events.on('state', ({ to }) => { if (to === 'serving') setImmediate(() => send('predecessor')) })`
    app = await Sharing.start(code(1), { load: false })
    const load = startLoad(app.target, {
      keepAlive: { clients: 300, thinkMs: 30 }, newConnections: { clients: 1, thinkMs: 20 }, answerTimeoutMs: 30_000
    })
    let first: number | undefined
    for (let round = 2; round <= 9; round++) {
      if (round % 4 === 0) await app.fails(`${code(round)}; handover.share('bad', { save: () => 1 }); handover.share('only in ${round - 1}', { restore() { throw new Error('no') } })`)
      await app.reload(code(round))
      await app.program.event('report', ({ pid, report }) => pid === app!.program.serving && (report as { result: string }).result === 'drained')
      if (round === 3) first = [...descriptorsOf(app.program.serving).values()].filter((to) => !to.startsWith('socket')).length
    }
    const { body } = await app.get('/memory')
    nothingLost(await load.stop())
    expect(body['heard']).toEqual({ predecessor: 20, successor: 0 })
    const count = (from: string): number => app!.program.events.filter((event) => event.event === 'large' && event['from'] === from).length
    expect({ predecessor: count('predecessor'), successor: count('successor') }).toEqual({ predecessor: 160, successor: 160 })
    await waitFor(() => [...descriptorsOf(app!.program.serving).values()].filter((to) => !to.startsWith('socket')).length <= first! + 1)
    await nothingIsWritten(app.program.serving)
    const memory = [...descriptorsOf(app.program.serving).values()].filter((to) => to.includes('memfd') || to.includes('handover'))
    expect(memory).toEqual([])
  })
})
