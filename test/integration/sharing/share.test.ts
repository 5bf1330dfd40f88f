/** share(): what the predecessor knew, the successor knows before it serves; and what cannot go along changes nothing. */

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { statusOf } from '../../helpers/built.js'
import { nothingLost } from '../../helpers/invariants.js'
import { descriptorsOf, waitFor } from '../../helpers/program.js'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { Sharing } from '../../helpers/sharing.js'

const light = { keepAlive: { clients: 2, thinkMs: 10 }, newConnections: { clients: 1, thinkMs: 10 }, answerTimeoutMs: 30_000 }
const remembers = `restore: (value, info) => { memory.value = value; memory.info = info }`
const simple = (value: string, more = ''): string => `handover.share('thing', { save: () => (${value}), ${remembers}, ${more} })`

let app: Sharing | undefined
afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  app = undefined
})

describe('a section', () => {
  it('is restored before the successor serves, with what is known of the one who saved it', async () => {
    app = await Sharing.start(simple(`{ users: new Map([['ann', { seen: new Date(0), bytes: Buffer.from('abc'), big: 12n }]]), tags: new Set([1, 2]) }`, 'schema: 3'), { env: { HANDOVER_VERSION: '1.2.3' } })
    const before = await app.get('/memory')
    expect(before.body['value']).toBeUndefined()
    expect(await app.reload()).toEqual({ restored: ['thing'], unclaimed: [], failed: [] })
    const { body, generation } = await app.get('/memory')
    expect(generation).toBe(2)
    expect(body.text).toMatch(/Map\(1\) \{\s+'ann' => \{\s*seen: 1970-01-01T00:00:00.000Z,\s*bytes: <Buffer 61 62 63>,\s*big: 12n/)
    expect(body['info']).toMatchObject({ phase: 'offer', version: '1.2.3', schema: 3, generation: 1, node: process.versions.node })
    nothingLost(await app.loadResult())
  })

  it('goes in the format of V8 to a successor that reads it, at the last too', async () => {
    app = await Sharing.start(`
      handover.share('list', {
        final: true, restore(value) { memory.list = value },
        save: ({ phase }) => Object.defineProperty([0, new Map([[1, { at: new Date(0) }]]), ...Array.from({ length: 50 }, () => ['x'.repeat(500)])], 0, { enumerable: true, get() {
          print('written', { phase, plain: new Error().stack.includes('encodePlain') })
          return phase
        } })
      })`, { load: false })
    await app.reload()
    for (const wanted of ['offer', 'final']) await app.program.event('written', ({ phase, generation, plain }) => phase === wanted && generation === 1 && plain === true)
    expect((await app.get('/memory')).body.text).toMatch(/list: \[\s+'(offer|final)',\s+Map\(1\) \{\s*1 => \{ at: 1970-01-01T00:00:00.000Z/)
  })

  it('that is small goes together with others, and each of a thousand is restored, missed or refused by itself', async () => {
    const many = (restores: string): string => `
      memory.seen = 0
      for (let index = 0; index < 990; index++) handover.share('section ' + index, {
        optional: index === 7,
        save: () => { if (index === 7) throw new Error('not this one'); return index % 100 === 5 ? 'x'.repeat(30_000) : index % 3 ? { index } : Promise.resolve([index, Buffer.alloc(index)]) },
        ${restores}
      })`
    const reads = `restore(value) { if (index % 100 === 5 ? value.length === 30_000 : index % 3 ? value.index === index : value[0] === index && value[1].length === index) memory.seen++ }`
    app = await Sharing.start(many(reads), { load: light })
    const { restored, unclaimed, failed } = await app.reload(many(reads))
    expect([restored.length, unclaimed, failed]).toEqual([989, [], [{ name: 'section 7', reason: expect.stringContaining('not this one') as string }]])
    expect((await app.get('/memory')).body['seen']).toBe(989)
    expect(await app.fails(many(`restore(value) { if (index === 300) throw new Error('no ' + value[0]) }`))).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('section "section 300" cannot be restored: no 300') })
    const fewer = await app.reload(`handover.share('section 1', { restore(value) { memory.value = value } })`)
    expect([fewer.restored, fewer.unclaimed.length]).toEqual([['section 1'], 989])
    expect((await app.get('/memory')).body['value']).toEqual({ index: 1 })
    const descriptors = readdirSync('/proc/' + (await app.get('/memory')).pid + '/fd').length
    expect(descriptors).toBeLessThan(60)
    nothingLost(await app.loadResult())
  })

  it('may be saved and restored asynchronously, and be an instance of a class; what several generations know goes on and on', async () => {
    app = await Sharing.start(`
      class Store {
        data = []
        async save() { await new Promise(setImmediate); return this.data }
        async restore(value) { await new Promise((done) => setTimeout(done, 50)); this.data = [...value, handover.generation]; memory.data = this.data }
      }
      handover.share('store', new Store())`, { load: light })
    for (let generation = 2; generation <= 4; generation++) await app.reload()
    expect((await app.get('/memory')).body['data']).toEqual([2, 3, 4])
    nothingLost(await app.loadResult())
  })

  it('may be a stream of items, which the successor reads as they were given', async () => {
    app = await Sharing.start(`handover.share('thing', {
      async *save() { for (let index = 0; index < 5000; index++) yield index % 2 ? { index, at: new Date(index) } : Buffer.alloc(1000, index) },
      async restore(items) {
        let bytes = 0, objects = 0
        for await (const item of items) { if (Buffer.isBuffer(item)) bytes += item.length; else if (item.at.getTime() === item.index) objects++ }
        Object.assign(memory, { bytes, objects })
      }
    })`, { load: light })
    await app.reload()
    expect((await app.get('/memory')).body).toMatchObject({ bytes: 2_500_000, objects: 2500 })
    nothingLost(await app.loadResult())
  })

  it('that the new version does not restore is reported, and one that the old version did not save is not missed', async () => {
    app = await Sharing.start(simple('1'), { load: light })
    expect(await app.reload(`handover.share('other', { save: () => 2, ${remembers} })`)).toEqual({ restored: [], unclaimed: ['thing'], failed: [] })
    expect(await app.reload(simple('3'))).toEqual({ restored: [], unclaimed: ['other'], failed: [] })
    nothingLost(await app.loadResult())
  })

  it('is saved anew for each reload, also after one that failed', async () => {
    app = await Sharing.start(`memory.saves = 0; handover.share('thing', { save: () => ++memory.saves, ${remembers} })`, { load: light })
    await app.fails(`throw new Error('this build is bad')`)
    await app.fails(`handover.share('thing', { restore: () => { throw new Error('no') } })`)
    await app.reload(simple('0'))
    // The first one never said hello, and so got no offer.
    expect((await app.get('/memory')).body['value']).toBe(2)
    nothingLost(await app.loadResult())
  })

  it('shows in the status how far it is, on its way out and on its way in', async () => {
    app = await Sharing.start(`handover.share('thing', {
      async *save() { for (let index = 0; ; index++) { yield Buffer.alloc(500_000); if (says('enough')) return } },
      async restore(items) { for await (const item of items) memory.bytes = item.length; while (!says('restored')) await new Promise((done) => setTimeout(done, 20)) }
    })`, { load: false })
    app.say('enough', 'return false')
    app.say('restored', 'return false')
    const { pid } = app.program
    const doing = async (): Promise<{ name: string; doing: string; bytes: number } | undefined> => {
      const [file] = readdirSync(app!.folder).filter((name) => name.startsWith(`@${pid}-`))
      const status = await statusOf(path.join(app!.folder, file!))
      return status?.processes.find((process) => process.pid === pid)?.sections[0]
    }
    expect(await doing()).toBeUndefined()
    const reloaded = app.reload()
    let bytes = 0
    for (let looks = 0; looks < 2; looks++) {
      await waitFor(async () => {
        const is = await doing()
        if (is?.doing !== 'saving' || is.bytes <= bytes) return false
        bytes = is.bytes
        return true
      })
    }
    app.say('enough', 'return true')
    await waitFor(async () => ['saved', 'restoring'].includes((await doing())?.doing ?? ''))
    app.say('restored', 'return true')
    expect(await reloaded).toMatchObject({ restored: ['thing'] })
    expect(await doing()).toBeUndefined()
  })

  it('that is final is saved again after the last request of the predecessor, and merged', async () => {
    const code = `handover.share('count', {
      final: true,
      save: () => memory.counted,
      restore: (value, { phase }) => { memory.counted = value; memory.offered = value; memory.phases = [phase] },
      merge: (value, { phase }) => { memory.counted += value - memory.offered; memory.phases.push(phase); print('merged') }
    })
    routes['/finish'] = () => ({ sent: handover.peer.send('finish') })
    routes['/held-count'] = () => new Promise((done) => handover.peer.on('finish', () => done({ counted: ++memory.counted })))`
    app = await Sharing.start(code, { load: false })
    for (let count = 0; count < 3; count++) await app.get('/count')
    const held = app.get('/held-count')
    await app.get('/memory')
    await app.reload()
    await app.get('/count')
    expect((await app.get('/memory')).body['counted']).toBe(4)
    await app.get('/finish')
    const { body, generation } = await held
    expect({ generation, ...body }).toMatchObject({ generation: 1, counted: 4 })
    await app.program.event('merged')
    expect((await app.get('/memory')).body).toMatchObject({ counted: 5, phases: ['offer', 'final'] })
  })
})

describe('neighbouring generations', () => {
  const code = `
    handover.peer.on('news', (value, info) => { print('news', { text: value.text.slice(0, 20), length: value.text.length, is: info.from, of: info.generation }) })
    routes['/tell'] = () => ({ sent: handover.peer.send('news', { text: 'from ' + handover.generation }) })
    routes['/tell-much'] = () => ({ sent: handover.peer.send('news', { text: 'x'.repeat(2_000_000) }) })
    routes['/finish'] = () => ({ sent: handover.peer.send('finish') })
    routes['/held-tell'] = () => new Promise((done) => handover.peer.on('finish', () => done({ sent: handover.peer.send('news', { text: 'from old ' + handover.generation }) })))`

  it('tell each other what changes while the predecessor drains, also more than a line holds, and nobody else afterwards', async () => {
    app = await Sharing.start(code, { load: false })
    expect((await app.get('/tell')).body['sent']).toBe(false)
    const held = app.get('/held-tell')
    await app.get('/memory')
    await app.reload()
    expect((await app.get('/tell')).body['sent']).toBe(true)
    expect(await app.program.event('news', ({ generation }) => generation === 1)).toMatchObject({ text: 'from 2', is: 'successor', of: 2 })
    expect((await app.get('/tell-much')).body['sent']).toBe(true)
    expect(await app.program.event('news', ({ length }) => length === 2_000_000)).toMatchObject({ generation: 1 })
    expect((await app.get('/finish')).body['sent']).toBe(true)
    expect((await held).body['sent']).toBe(true)
    expect(await app.program.event('news', ({ generation }) => generation === 2)).toMatchObject({ text: 'from old 1', is: 'predecessor', of: 1 })
    await app.program.event('report', ({ report }) => (report as { result: string }).result === 'drained')
    await waitFor(async () => (await app!.get('/tell')).body['sent'] === false)
  })

  it('hear nothing that is no plain data, and the sender learns it', async () => {
    app = await Sharing.start(`routes['/wrong'] = () => { try { handover.peer.send('news', { f: () => 1 }) } catch (error) { return { code: error.code, message: error.message } } }`, { load: false })
    const { body } = await app.get('/wrong')
    expect(body).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringMatching(/"news".*function at f/s) as string })
  })
})

describe('a section that cannot go along', () => {
  let bad: Sharing
  let serving: number
  let descriptors: number
  beforeAll(async () => {
    bad = await Sharing.start(`memory.kept = 'still here'; handover.share('thing', { save: (info) => says('save', info), timeout: 1500, maxBytes: 100_000 })`, { options: { readyTimeout: 20_000 }, load: light })
    serving = bad.program.pid
    descriptors = descriptorsOf(serving).size
  })
  afterAll(async () => {
    try {
      nothingLost(await bad.loadResult())
      expect(bad.program.alive).toEqual([serving])
    } finally {
      await bad[Symbol.asyncDispose]()
    }
  })

  const wants = `handover.share('thing', { ${remembers} })`

  it.each([
    ['save throws', `throw new Error('no memory of it')`, wants, /section "thing".*no memory of it/s],
    ['save rejects', `return Promise.reject(new Error('the database is gone'))`, wants, /the database is gone/],
    ['save hangs', `return new Promise(() => undefined)`, wants, /cannot be restored: it could not be saved: save\(\) took longer than its timeout, 1500 ms/],
    ['save answers a function', `return { users: new Map([['ann', { hooks: [1, () => 2] }]]) }`, wants, /a function at users\.get\("ann"\)\.hooks\[1\]/],
    ['save answers a socket', `const net = require('node:net'); return { deep: { socket: new net.Socket() } }`, wants, /instance of Socket at deep\.socket/],
    ['save answers more than the limit', `return 'x'.repeat(200_000)`, wants, /200[_,]?\d*.*100[_,]?000/s],
    ['its stream throws in the middle', `return (async function* () { yield 1; throw new Error('half way') })()`, wants, /half way/],
    ['its stream hangs in the middle', `return (async function* () { yield 1; await new Promise(() => undefined) })()`, wants, /took longer than its timeout, 1500 ms/],
    ['restore throws', `return 1`, `handover.share('thing', { restore() { throw new Error('I cannot read that') } })`, /restored: I cannot read that/],
    ['restore rejects', `return 1`, `handover.share('thing', { async restore() { throw new Error('I cannot read that') } })`, /restored: I cannot read that/],
    ['restore hangs', `return 1`, `handover.share('thing', { timeout: 300, restore: () => new Promise(() => undefined) })`, /restore\(\) took longer than its timeout, 300 ms/],
    ['the new version reads another schema', `return 1`, `handover.share('thing', { schema: 2, restore() {} })`, /no schema \(0\), and this program reads 2\. Name it in accepts/]
  ])('changes nothing when %s', async (_how, save, successor, reason) => {
    bad.say('save', save)
    const failed = await bad.fails(successor)
    expect(failed['code']).toBe('HANDOVER_STATE')
    expect(failed['message']).toMatch(reason)
    expect(failed['message']).toContain(`Process ${serving} (generation 1) keeps serving`)
    expect(failed['message']).toContain('--without-state')
    const { pid, body } = await bad.get('/memory')
    expect({ pid, kept: body['kept'] }).toEqual({ pid: serving, kept: 'still here' })
    await waitFor(() => descriptorsOf(serving).size <= descriptors + 8 && bad.program.alive.length === 1)
  })

  it.each([
    ['dies while it is sent to it', `return (async function* () { for (let index = 0; index < 50; index++) { await new Promise((done) => setTimeout(done, 5)); yield index } })()`, `setTimeout(() => process.kill(process.pid, 'SIGKILL'), 20); handover.share('thing', { ${remembers} })`],
    ['dies while it restores', `return 1`, `handover.share('thing', { restore: () => { process.kill(process.pid, 'SIGKILL') } })`],
    ['ends while it restores', `return 1`, `handover.share('thing', { restore: () => process.exit(0) })`]
  ])('changes nothing when the successor %s', async (_how, save, successor) => {
    bad.say('save', save)
    const failed = await bad.fails(successor)
    expect(failed['code']).toBe('HANDOVER_SUCCESSOR_EXIT')
    expect((await bad.get('/memory')).pid).toBe(serving)
  })
})

describe('what the new version can do without', () => {
  it.each([
    ['cannot be saved', `save: () => { throw new Error('no memory of it') }`, `optional: true, ${remembers}`, /no memory of it/],
    ['cannot be restored', `save: () => 1`, `optional: true, restore() { throw new Error('I cannot read that') }`, /I cannot read that/],
    ['has a schema that it does not know', `save: () => 1, schema: 7`, `optional: true, schema: 6, accepts: [5, 6], restore() {}`, /schema 7.*reads 5, 6\./]
  ])('is left behind, and reported, when it %s', async (_how, saves, restores, reason) => {
    app = await Sharing.start(`handover.share('thing', { ${saves} })`, { load: light })
    const { restored, failed } = await app.reload(`handover.share('thing', { ${restores} })`)
    expect(restored).toEqual([])
    expect(failed).toMatchObject([{ name: 'thing', reason: expect.stringMatching(reason) as string }])
    await app.program.stderrMatching(/warn: section "thing" is not restored:.*This process goes on without it/)
    nothingLost(await app.loadResult())
  })
})

describe('a predecessor that dies', () => {
  it.each([
    ['before it has saved all', `handover.share('first', { save: () => 1 }); handover.share('thing', { save: () => { process.kill(process.pid, 'SIGKILL'); return new Promise(() => undefined) } })`, { restored: ['first'], failed: ['thing'] }],
    ['in the middle of a stream', `handover.share('first', { save: () => 1 }); handover.share('thing', { async *save() { yield 1; process.kill(process.pid, 'SIGKILL'); await new Promise(() => undefined) } })`, { restored: ['first'], failed: ['thing'] }]
  ])('%s leaves a successor that serves with what has arrived', async (_how, code, expected) => {
    app = await Sharing.start(code, { load: { newConnections: { clients: 1, thinkMs: 10 } } })
    app.write(`handover.share('first', { restore: (value) => { memory.first = value } }); handover.share('thing', { ${remembers} })`)
    process.kill(app.program.pid, 'SIGHUP')
    await app.program.event('state', ({ generation, to }) => generation === 2 && to === 'serving')
    expect((await app.get('/memory')).body).toMatchObject({ first: 1 })
    await app.program.stderrMatching(new RegExp(`section "${expected.failed[0]}" is not restored: the predecessor ended before it was sent`))
    const { losses } = await app.loadResult()
    expect(losses.filter(({ reason }) => reason === 'refused' || reason === 'connect')).toEqual([])
  })

  it('while the successor restores leaves one that serves, even where restore then throws', async () => {
    app = await Sharing.start(`handover.share('thing', { save: () => 1 })`, { load: false })
    app.write(`handover.share('thing', { async restore() { process.kill(${app.program.pid}, 'SIGKILL'); await new Promise((done) => setTimeout(done, 200)); throw new Error('I cannot read that') } })`)
    process.kill(app.program.pid, 'SIGHUP')
    await app.program.event('state', ({ generation, to }) => generation === 2 && to === 'serving')
    await app.program.stderrMatching(/section "thing" is not restored: I cannot read that/)
    expect((await app.get('/memory')).generation).toBe(2)
  })
})

describe('wrong use', () => {
  it('is refused with what is wrong and what to give', async () => {
    app = await Sharing.start(`
      memory.errors = []
      const attempt = (...args) => { try { handover.share(...args) } catch ({ code, message }) { memory.errors.push(code + ': ' + message) } }
      handover.share('thing', { save: () => 1 })
      attempt('thing', { save: () => 1 })
      attempt('', { save: () => 1 })
      attempt('@own', { save: () => 1 })
      attempt('half a character: \\ud800', { save: () => 1 })
      attempt('a')
      attempt('b', {})
      attempt('c', { save: 1 })
      attempt('d', { save: () => 1, timeout: -1 })
      attempt('e', { restore: () => 1, checkpoint: 100 })
      attempt('f', { save: () => 1, schema: 'two' })
      attempt('g', { save: () => 1, checkpoints: 5000 })
      attempt('h', { save: () => 1, maxbytes: 5000 })
      try { handover.aggregate('service', { own: () => 1, add: (a, b) => a + b }) } catch ({ message }) { memory.service = message }`, { load: false })
    const { body } = await app.get('/memory')
    const errors = body['errors'] as string[]
    expect(errors).toHaveLength(12)
    expect(body['service']).toBe("aggregate('service') has the name of Handover's own count, which handover.service shows. Nothing was changed. Give another name.")
    for (const error of errors) expect(error).toMatch(/^HANDOVER_OPTION: .+\. Nothing was changed\. Give .+/)
    expect(errors[0]).toContain('share("thing") was called twice')
    expect(errors.slice(-2)).toEqual(['section "g" has checkpoints, which is no option of a section. Nothing was changed. Give checkpoint, or call it something else.', 'section "h" has maxbytes, which is no option of a section. Nothing was changed. Give maxBytes, or call it something else.'].map((text) => expect.stringContaining(text) as string))
  })

  it('of share() after the process is ready is told', async () => {
    app = await Sharing.start(simple('1'), { load: false })
    await app.reload(`handover.events.on('state', ({ to }) => { if (to === 'serving') handover.share('thing', { ${remembers} }) })`)
    await app.program.stderrMatching(/share\("thing"\) was called when this process was ready already/)
  })
})

describe('a reload without state', () => {
  it('starts a successor that knows nothing', async () => {
    app = await Sharing.start(`handover.share('thing', { save: () => { throw new Error('broken') } }); routes['/fresh'] = () => { void handover.reload({ withoutState: true }).catch((error) => print('refused', { message: error.message })); return {} }`, { load: light })
    app.write(`handover.share('thing', { ${remembers} })`)
    expect((await app.fails())['code']).toBe('HANDOVER_STATE')
    await app.get('/fresh')
    await app.program.event('state', ({ generation, to }) => generation === 2 && to === 'serving')
    expect((await app.get('/memory')).body['value']).toBeUndefined()
    await app.program.stderrMatching(/the successor begins without state, as was asked\. What stays behind: thing$/m)
    nothingLost(await app.loadResult())
  })
})

describe('the schema of a section', () => {
  it('is 0 where none was given, so that a section may get one later, and that of a program is always known to it', async () => {
    app = await Sharing.start(`handover.share('thing', { of: 'without', ttl: undefined, save() { return this.of } })`, { load: false })
    const second = `handover.share('thing', { schema: 1, accepts: [0], save: () => 'with', restore: (value, { schema }) => { memory.value = { value, schema } } })`
    expect((await app.reload(second)).restored).toEqual(['thing'])
    expect((await app.get('/memory')).body['value']).toEqual({ value: 'without', schema: null })
    expect((await app.reload(second)).restored).toEqual(['thing'])
    expect((await app.get('/memory')).body['value']).toEqual({ value: 'with', schema: 1 })
    expect((await app.fails(`handover.share('thing', { restore() {} })`))['message']).toMatch(/it has schema 1, and this program reads 0\. Name it in accepts/)
  })
})

describe('the log', () => {
  it('says where a save, a restore and a merge threw, in the process in which they did', async () => {
    app = await Sharing.start(`
      const function1 = () => { throw new TypeError('not today') }
      handover.share('first', { optional: true, save: () => function1() })
      handover.share('second', { final: true, save: () => 1 })`, { load: false })
    await app.reload(`
      const function2 = () => { throw new TypeError('not this') }
      const function3 = () => { throw new TypeError('not that') }
      handover.share('first', { optional: true, restore() {} })
      handover.share('second', { optional: true, restore: () => function2(), merge: () => function3() })`)
    for (const what of ['save() of section "first" threw TypeError: not today\n    at function1', 'restore() of section "second" threw TypeError: not this\n    at function2', 'merge() of section "second" threw TypeError: not that\n    at function3']) {
      await app.program.until(() => app!.program.stderr.includes(what))
    }
  })

  it('has one full stop where a reason that is a sentence stands before another', async () => {
    app = await Sharing.start(`handover.share('thing', { save: () => ({ run() {} }) })`, { load: false })
    await app.reload(`handover.share('thing', { optional: true, restore() {} })`)
    await app.program.stderrMatching(/section "thing" is not restored: the state of .* holds a function at run, .*, errors\. This process goes on without it\.$/m)
    expect(app.program.stderr).not.toMatch(/[^.]\.\.(?!\.)/)
  })

  it('says with the switch what became of each section', async () => {
    app = await Sharing.start(`for (const name of ['a', 'b', 'c', 'd']) handover.share(name, { save: () => 1 })`, { load: false })
    await app.reload(`for (const name of ['a', 'b']) handover.share(name, { restore() {} }); handover.share('d', { optional: true, restore() { throw new Error('no') } })`)
    await app.program.stderrMatching(/serves; 1 listener kept; 2 sections restored; not restored, the new version has no share\(\) of that name: c; not restored: d \(no\); launch/)
  })

  it('says once that messages to nobody are lost', async () => {
    app = await Sharing.start(`handover.events.on('draining', () => { for (let n = 0; n < 1_500; n++) handover.peer.send('news', n, 'successor'); handover.peer.send('last', 1, 'successor') })
      handover.peer.on('last', () => print('last'))`, { load: false })
    await app.reload()
    await app.program.event('last')
    expect(app.program.stderr.match(/the oldest are lost/g)).toHaveLength(1)
  })
})
