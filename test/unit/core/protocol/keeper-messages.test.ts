/** Every message between a keeper and a worker, with every field, once right and once wrong; and the lines that are none. */

import { describe, expect, it } from 'vitest'
import {
  type KeeperMessage, keeperMessages, keeperShapes, type OfferedListener, type WorkerMessage, workerMessages, workerShapes
} from '../../../helpers/internals.js'
import { different, exampleReport, exampleStatus } from '../../../helpers/example-words.js'

const listener: OfferedListener = { name: 'tcp 0.0.0.0:3000', kind: 'tcp', asked: 'tcp *:3000', address: '0.0.0.0', port: 3000, ipv6: false, ipv6Only: false, backlog: 511 }
const snapshot = { id: '4312-5f3a', includes: ['4120-9c01'] }
const listeners = [listener, { ...listener, bound: true }]

type Examples<M extends { readonly type: string }> = { readonly [T in M['type']]: Extract<M, { type: T }> }

const fromWorker: Examples<WorkerMessage> = {
  hello: { type: 'hello', protocol: 1, pid: 4312 },
  state: { type: 'state', state: 'serving', generation: 2 },
  booted: { type: 'booted', kept: ['tcp 0.0.0.0:3000'], added: [], dropped: ['unix /run/app.sock'], speaks: [{ listener: 'tcp 0.0.0.0:3000', protocol: 'http' }] },
  serves: { type: 'serves', listeners },
  report: { type: 'report', report: exampleReport },
  failed: { type: 'failed', successor: 4312, code: 'HANDOVER_SUCCESSOR_EXIT', message: 'it ended. Process 4120 serves. Repair it.', what: 'it ended', serving: 'Process 4120 serves', todo: 'Repair it', stderr: '' },
  wants: { type: 'wants', id: 7, withoutState: false, allowDrop: true },
  status: { type: 'status', id: 7, status: exampleStatus },
  checkpoint: { type: 'checkpoint', name: 'sessions', bytes: 4096 },
  gather: { type: 'gather', id: 7, topic: 'metrics', snapshot },
  told: { type: 'told', id: 7, topic: 'metrics', snapshot },
  tally: { type: 'tally', topic: 'metrics', snapshot }
}

const fromKeeper: Examples<KeeperMessage> = {
  proceed: { type: 'proceed' },
  veto: { type: 'veto', reason: 'it listens no more on tcp 0.0.0.0:3000' },
  probe: { type: 'probe', listener: 'tcp 0.0.0.0:3000' },
  reload: { type: 'reload', pid: 4313, listeners, withoutState: false, allowDrop: true },
  recall: { type: 'recall', reason: 'the reload failed' },
  settle: { type: 'settle' },
  cover: { type: 'cover', listeners },
  stop: { type: 'stop', last: true, signal: 'SIGINT' },
  ask: { type: 'ask', id: 7 },
  tell: { type: 'tell', id: 7, topic: 'metrics' },
  gathered: { type: 'gathered', id: 7, ids: ['4312-5f3a', '4120-9c01'] },
  inherit: { type: 'inherit', topic: 'metrics', of: '4312-5f3a' },
  leave: { type: 'leave' },
  outcome: { type: 'outcome', id: 7, ok: false, code: 'HANDOVER_RELOAD_RUNNING', message: 'a reload already runs. Wait.', what: 'a reload already runs', serving: 'Process 4120 serves', todo: 'Wait', stderr: 'Error: no' }
}

/** Wrong for whatever a field is meant to be, except for what it happens to be. */
const values: readonly unknown[] = [undefined, null, true, -1, 1.5, 2 ** 53, 'text', [], [1], ['text'], {}, [{}]]
const isText = (value: unknown): boolean => typeof value === 'string'
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0
const isNames = (value: unknown): boolean => Array.isArray(value) && value.every(isText)
const isEmpty = (value: unknown): boolean => Array.isArray(value) && value.length === 0
const isBoolean = (value: unknown): boolean => typeof value === 'boolean'
const right: Readonly<Record<string, (value: unknown) => boolean>> = {
  withoutState: isBoolean, allowDrop: isBoolean,
  // Not sent by keepers of before.
  'wants.id': (value) => value === undefined || isCount(value),
  'outcome.id': (value) => value === undefined || isCount(value),
  'outcome.stderr': (value) => value === undefined || isText(value),
  signal: (value) => value === undefined || isText(value),
  what: (value) => value === undefined || isText(value),
  serving: (value) => value === undefined || isText(value),
  todo: (value) => value === undefined || isText(value),
  protocol: isCount, pid: isCount, successor: isCount, generation: isCount, id: isCount,
  state: isText, code: isText, message: isText, stderr: isText, reason: isText, listener: isText,
  kept: isNames, added: isNames, dropped: isNames, listeners: isEmpty, speaks: isEmpty, report: () => false, status: () => false,
  last: isBoolean, ok: isBoolean, name: isText, topic: isText, bytes: isCount, snapshot: () => false, of: isText, ids: isNames
}

const sides = [
  ['from a worker', fromWorker, workerShapes, workerMessages.parse],
  ['from a keeper', fromKeeper, keeperShapes, keeperMessages.parse]
] as const satisfies readonly (readonly [string, Readonly<Record<string, object>>, Readonly<Record<string, object>>, (
  line: string
) => unknown])[]

describe.each(sides)('a line %s', (_side, examples: Readonly<Record<string, object>>, shapes: Readonly<Record<string, object>>, parse) => {
  const types = Object.keys(examples)
  const wrongFields = types.flatMap((type) => Object.keys(shapes[type]!).flatMap((field) =>
    values.filter((value) => !(right[`${type}.${field}`] ?? right[field]!)(value)).map((value) => [type, field, JSON.stringify(value) ?? 'nothing', value] as const)))

  it('has an example here for every message', () => {
    expect(types).toEqual(Object.keys(shapes))
  })

  it.each(types)('that is a right "%s" is read as it is', (type) => {
    expect(parse(JSON.stringify(examples[type]))).toEqual(examples[type])
  })

  it.each(types)('that is a "%s" with fields of a later version is read', (type) => {
    expect(parse(JSON.stringify({ ...examples[type], later: [1, 2] }))).toMatchObject(examples[type]!)
  })

  it.each(wrongFields)('"%s" whose "%s" is %s is refused with the name of the field', (type, field, _text, value) => {
    expect(() => parse(JSON.stringify({ ...examples[type], [field]: value }))).toThrow(expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringContaining(`with a valid "${field}", found`) }))
  })

  it.each(['', '{', 'null', '[]', '{}', '{"type":null}', '{"type":"surrender"}', '{"type":"toString"}', '{"type":"__proto__"}', `${JSON.stringify(examples[types[0]!])}x`])('%j is no message, and the error says what was found', (line) => {
    expect(() => parse(line)).toThrow(expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringMatching(/^expected one of .+, found ".*"\.$/s) }))
  })
})

describe('a line', () => {
  it.each([['kind', 'sctp'], ['name', undefined], ['port', -1], ['bound', 'yes']] as const)('with a listener whose "%s" is %s is refused, whoever it is from', (field, value) => {
    const wrong = [listener, { ...listener, [field]: value }]
    const refused = expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringContaining('with a valid "listeners"') })
    expect(() => workerMessages.parse(JSON.stringify({ type: 'serves', listeners: wrong }))).toThrow(refused)
    for (const type of ['reload', 'cover'] as const) expect(() => keeperMessages.parse(JSON.stringify({ ...fromKeeper[type], listeners: wrong }))).toThrow(refused)
  })

  it.each([[{ listener: 'tcp 0.0.0.0:3000' }], [{ protocol: 'http' }], [{ listener: 1, protocol: 'http' }]])('of a worker that speaks %j is refused', (spoken) => {
    expect(() => workerMessages.parse(JSON.stringify({ ...fromWorker.booted, speaks: [spoken] }))).toThrow(expect.objectContaining({ message: expect.stringContaining('with a valid "speaks"') }))
  })

  it.each([
    ['pid', -1], ['state', 7], ['name', 1], ['keeper', undefined], ['ageMs', null], ['listeners', [1]], ['connections', { http: 'two' }], ['requests.failed', undefined], ['endsInMs', 'soon'], ['debugged', 1],
    ['lastReport.durations', null], ['lastReport.state', undefined], ['service', undefined], ['service.includes', null], ['sections', undefined], ['sections', [{ name: 'sessions', doing: 'saving' }]]
  ])('with a status whose "%s" is %j is refused', (field, value) => {
    expect(() => workerMessages.parse(JSON.stringify({ type: 'status', id: 7, status: different(exampleStatus, field, value) }))).toThrow(/with a valid "status", found/)
  })

  it.each([['lastReport', null], ['state', 'later'], ['requests.later', 1], ['later', {}]])('with a status whose "%s" is %j, as in another version, is read', (field, value) => {
    const message = { type: 'status', id: 7, status: different(exampleStatus, field, value) }
    expect(workerMessages.parse(JSON.stringify(message))).toEqual(message)
  })

  it('of the other side is no message', () => {
    expect(() => workerMessages.parse(JSON.stringify(fromKeeper.reload))).toThrow(/expected one of hello, state/)
    expect(() => keeperMessages.parse(JSON.stringify(fromWorker.booted))).toThrow(/expected one of proceed, veto/)
  })
})
