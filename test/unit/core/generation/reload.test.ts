/** Two generations in one process, over a fake host: what a whole reload does, in which order, and who serves meanwhile. */

import { expect, it } from 'vitest'
import { ask, FakeMachine, type FakeProgram } from '../../../helpers/fake-host.js'

const server: FakeProgram = async (process) => {
  process.generation.configure({ undoWindow: 1_000, linger: 0 })
  await process.listen(process.serve())
}

it('says each message in the order of PROTOCOL.md, and each side is where its messages say', async () => {
  await using machine = new FakeMachine(server)
  const first = await machine.start()
  const report = await first.generation.reload()
  expect(report).toMatchObject({ result: 'switched', trigger: 'call', predecessor: { pid: 5000001, generation: 1 }, successor: { pid: 5000002, generation: 2 } })
  expect(machine.story).toEqual([
    '1 is serving',
    '1 is launching',
    '2 says hello',
    '1 hears hello',
    '1 is offering',
    '1 says offer',
    '2 is taking',
    '2 hears offer',
    '2 is preparing',
    '2 is ready',
    '2 says ready',
    '1 hears ready',
    '1 is committing',
    '1 says commit',
    '2 hears commit',
    '2 is serving',
    '2 says serving',
    '1 hears serving',
    '1 is draining'
  ])
  await machine.advance(1_000)
  await machine.until(() => first.end !== undefined, 'the predecessor to end')
  expect(machine.story.slice(19)).toEqual(['1 is closing', '1 is ended', '1 says end', '2 hears end', '1 exits with 0'])
  expect(machine.alive.map(({ number, state }) => [number, state])).toEqual([[2, 'serving']])
})

it('answers at one port before, during and after the switch, and each side accepts only while it serves', async () => {
  const acceptedWhile: string[] = []
  await using machine = new FakeMachine(async (process) => {
    process.generation.configure({ undoWindow: 1_000, linger: 0 })
    await process.listen(process.serve().on('connection', () => { acceptedWhile.push(`${process.number} is ${process.state}`) }))
  })
  const first = await machine.start()
  const { port } = first
  const asked: [step: string, answer: Promise<string>][] = []
  machine.onStep = ({ by, does }) => { asked.push([`${by.number} ${does}`, ask(port)]) }
  await first.generation.reload()
  await machine.advance(1_000)
  await machine.until(() => first.end !== undefined, 'the predecessor to end')
  const answers = await Promise.all(asked.map(async ([step, answer]) => [step, await answer] as const))
  expect(answers[0]).toEqual(['1 is launching', '1'])
  const afterTheSwitch = answers.slice(answers.findIndex(([step]) => step === '1 is draining'))
  expect(new Set(afterTheSwitch.map(([, answer]) => answer))).toEqual(new Set(['2']))
  for (const when of acceptedWhile) expect(when).toMatch(/^1 is (serving|launching|offering|committing)$|^2 is serving$/)
})

it('hands over from generation to generation, and each older one ends', async () => {
  await using machine = new FakeMachine(server)
  let serving = await machine.start()
  const { port } = serving
  for (let generation = 2; generation <= 5; generation++) {
    const predecessor = serving
    await predecessor.generation.reload()
    serving = machine.processes.at(-1)!
    expect([serving.generation.generation, await ask(port)]).toEqual([generation, String(generation)])
    await machine.advance(1_000)
    await machine.until(() => predecessor.end !== undefined, 'the predecessor to end')
    expect(predecessor.end).toEqual({ code: 0, signal: null })
  }
  expect(machine.alive).toEqual([serving])
})

it('tells each listener of an event what happens, also behind one that throws or rejects', async () => {
  const heard: string[] = []
  await using machine = new FakeMachine(async (process) => {
    const { generation, number } = process
    generation.configure({ undoWindow: 1_000, linger: 0 })
    generation.events.once('draining', () => { throw new Error('the first') })
    generation.events.on('draining', async () => { await Promise.reject(new Error('the second')) })
    generation.events.once('draining', () => { heard.push(`draining of ${number}`) })
    await process.listen(process.serve())
  })
  const first = await machine.start()
  await first.generation.reload()
  expect(heard).toEqual(['draining of 1'])
  expect(first.generation.events.listenerCount('draining')).toBe(1)
  await machine.advance(1_000)
  await machine.until(() => first.end !== undefined, 'the predecessor to end')
  const said = first.lines.join('\n')
  expect(said).toContain('a listener of "draining" threw: Error: the first')
  expect(said).toContain('a listener of "draining" rejected: Error: the second')
})

it('says who asked for a reload by its signal, and that the end of its terminal is no such thing', async () => {
  await using machine = new FakeMachine(server)
  const first = await machine.start()
  first.hangup = { isHangup: false, by: ' by kill' }
  first.signal('SIGHUP')
  expect(first.lines.at(-1)).toBe('1 info: SIGHUP: a reload was asked for by kill')
  await machine.until(() => machine.processes[1]?.state === 'serving', 'the switch')
  const [, second] = machine.processes
  second!.hangup = { isHangup: true, by: '' }
  second!.signal('SIGHUP')
  expect(second!.lines).toContain(`2 info: SIGHUP: the terminal of process ${second!.pid} hung up, so it stops`)
  await machine.until(() => second!.end !== undefined, 'the stop')
  expect(machine.processes).toHaveLength(2)
})
