/** Every message with every field, once right and once wrong; and the lines that are none. */

import { describe, expect, it } from 'vitest'
import { handoverMessages, maxLineBytes, type Message, type MessageType, protocol, shapes, speaks } from '../../../helpers/internals.js'
import { different, exampleReport } from '../../../helpers/example-words.js'

const listener = { name: 'tcp 0.0.0.0:3000', kind: 'tcp', asked: 'tcp *:3000', address: '0.0.0.0', port: 3000, ipv6: false, ipv6Only: false, backlog: 511 } as const

const connection = { kind: 'http', listener: 'tcp 0.0.0.0:3000', ageMs: 61_000, idleMs: 250, requests: 7 } as const

const examples: { readonly [T in MessageType]: Extract<Message, { type: T }> } = {
  hello: { type: 'hello', protocol: 1, pid: 4312 },
  offer: { type: 'offer', protocol: 1, pid: 4120, generation: 2, listeners: [listener, { ...listener, name: 'unix /run/app.sock', kind: 'unix', file: '1:2', path: '/run/app.sock' }, { ...listener, bound: true }], sections: ['sessions'], since: 1_700_000_000_000, readyMs: 60_000, mayDrop: true, alone: false, lacks: ['listen EACCES: permission denied /run/app.sock'] },
  section: { type: 'section', name: 'sessions', phase: 'offer', bytes: 4096 },
  unsaved: { type: 'unsaved', name: 'sessions', phase: 'final', reason: 'save() threw' },
  restoring: { type: 'restoring', name: 'sessions', bytes: 4096 },
  peer: { type: 'peer', name: 'cache', text: '[1]' },
  refused: { type: 'refused', code: 'HANDOVER_RELOAD_RUNNING', reason: 'a reload already runs' },
  ready: { type: 'ready', kept: ['tcp 0.0.0.0:3000'], added: [], dropped: ['unix /run/app.sock'], state: { restored: ['sessions'], unclaimed: [], failed: [] } },
  failed: { type: 'failed', reason: 'EADDRINUSE', code: 'HANDOVER_STATE' },
  commit: { type: 'commit' },
  serving: { type: 'serving', takes: { listeners: ['tcp 0.0.0.0:3000'], kinds: ['chat'], room: 900 }, pongs: true },
  ping: { type: 'ping' },
  pong: { type: 'pong', debugged: true },
  withdraw: { type: 'withdraw', reason: 'it was not ready in time' },
  settled: { type: 'settled' },
  move: { type: 'move', connections: [connection, { ...connection, kind: 'chat', state: '[1]', unread: 'aGVsbG8=' }] },
  taken: { type: 'taken', count: 2, back: [1] },
  end: { type: 'end', report: exampleReport }
}
const types = Object.keys(examples) as MessageType[]

/** Wrong for whatever a field is meant to be, except for what it happens to be. */
const values: readonly unknown[] = [undefined, null, true, -1, 1.5, 2 ** 53, 'text', [], [1], ['text'], {}, [{}]]
const right: Readonly<Record<string, (value: unknown) => boolean>> = {
  protocol: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
  reason: (value) => typeof value === 'string',
  report: (value) => value === undefined,
  kept: (value) => Array.isArray(value) && value.every((name) => typeof name === 'string'),
  listeners: (value) => Array.isArray(value) && value.length === 0,
  takes: (value) => value === undefined,
  name: (value) => typeof value === 'string',
  bytes: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
  phase: () => false,
  text: (value) => value === undefined || typeof value === 'string',
  sections: (value) => value === undefined || (Array.isArray(value) && value.every((name) => typeof name === 'string')),
  since: (value) => value === undefined || (Number.isSafeInteger(value) && (value as number) >= 0),
  readyMs: (value) => value === undefined || (Number.isSafeInteger(value) && (value as number) >= 0),
  mayDrop: (value) => value === undefined || typeof value === 'boolean',
  alone: (value) => value === undefined || typeof value === 'boolean',
  pongs: (value) => value === undefined || typeof value === 'boolean',
  debugged: (value) => value === undefined || typeof value === 'boolean',
  back: (value) => value === undefined || (
    Array.isArray(value) && value.every((index) => Number.isSafeInteger(index) && (index as number) >= 0)
  ),
  state: (value) => value === undefined,
  listed: (value) => value === undefined || (Array.isArray(value) && value.length === 0),
  v8: (value) => value === undefined || typeof value === 'string',
  'failed.code': (value) => value === undefined || typeof value === 'string'
}
Object.assign(right, { pid: right['protocol'], generation: right['protocol'], code: right['reason'], added: right['kept'], lacks: right['sections'], dropped: right['kept'], connections: right['listeners'], count: right['protocol'] })

const wrongFields = types.flatMap((type) => Object.keys(shapes[type]).flatMap((field) =>
  values.filter((value) => !(right[`${type}.${field}`] ?? right[field]!)(value)).map((value) => [type, field, JSON.stringify(value) ?? 'nothing', value] as const)))

const wrongListeners = ([
  ['name', undefined], ['name', 1], ['asked', null], ['address', 7], ['port', -1], ['port', '3000'], ['backlog', undefined], ['backlog', 1.5], ['bound', 'yes'], ['bound', 1], ['path', 1],
  ['kind', 'sctp'], ['kind', undefined], ['kind', 'constructor']
] as const).map(([field, value]) => [field, JSON.stringify(value) ?? 'nothing', value] as const)

const wrongConnections = ([
  ['kind', undefined], ['kind', 1], ['listener', null], ['ageMs', -1], ['ageMs', undefined], ['idleMs', 'long'], ['idleMs', 1.5], ['requests', undefined], ['state', 1], ['unread', []]
] as const).map(([field, value]) => [field, JSON.stringify(value) ?? 'nothing', value] as const)

const wrongTakes = ([['listeners', undefined], ['listeners', [1]], ['kinds', 'chat'], ['room', -1], ['room', undefined]] as const).map(([field, value]) => [field, JSON.stringify(value) ?? 'nothing', value] as const)

describe('a line', () => {
  it.each(types)('that is a right "%s" is read as it is', (type) => {
    expect(handoverMessages.parse(JSON.stringify(examples[type]))).toEqual(examples[type])
  })

  it.each(types)('that is a "%s" with fields of a later version is read', (type) => {
    expect(handoverMessages.parse(JSON.stringify({ ...examples[type], later: [1, 2] }))).toMatchObject(examples[type])
  })

  it.each(wrongFields)('"%s" whose "%s" is %s is refused with the name of the field', (type, field, _text, value) => {
    expect(() => handoverMessages.parse(JSON.stringify({ ...examples[type], [field]: value }))).toThrow(expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringContaining(`with a valid "${field}", found`) }))
  })

  it.each(wrongListeners)('"offer" with a listener whose "%s" is %s is refused', (field, _text, value) => {
    expect(() => handoverMessages.parse(JSON.stringify({ ...examples.offer, listeners: [listener, { ...listener, [field]: value }] }))).toThrow(expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringContaining('with a valid "listeners"') }))
  })

  it.each(wrongConnections)('"move" with a connection whose "%s" is %s is refused', (field, _text, value) => {
    expect(() => handoverMessages.parse(JSON.stringify({ ...examples.move, connections: [connection, { ...connection, [field]: value }] }))).toThrow(expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringContaining('with a valid "connections"') }))
  })

  it.each(wrongTakes)('"serving" that takes with a "%s" of %s is refused', (field, _text, value) => {
    expect(() => handoverMessages.parse(JSON.stringify({ ...examples.serving, takes: { ...examples.serving.takes, [field]: value } }))).toThrow(expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringContaining('with a valid "takes"') }))
  })

  it.each(['', ' ', 'hello', '{', 'null', '1', '"hello"', '[]', '{}', '{"type":null}', '{"type":["hello"]}', '{"type":"surrender"}', '{"type":"toString"}', '{"type":"__proto__"}', '\0', '{"type":"commit"}x'])('%j is no message, and the error says what was found', (line) => {
    expect(() => handoverMessages.parse(line)).toThrow(expect.objectContaining({ code: 'HANDOVER_PROTOCOL', message: expect.stringMatching(/^expected one of hello, offer, .+, found ".*"\.$/s) }))
  })

  it.each([
    ['result', 'lost'], ['trigger', 1], ['predecessor', null], ['predecessor.pid', '4120'], ['successor', undefined], ['listeners.kept', [1]], ['state', undefined], ['state.restored', 'sessions'], ['state.failed', [{ name: 'cache' }]],
    ['connections.open', 1.5], ['connections.kinds.http.cut', null], ['connections.stayed', []], ['connections.stayed.TLS', 'two'], ['requestsCut', [{ method: 'GET' }]], ['requestsCutBeside', -1], ['durations.drain', undefined], ['durations', {}]
  ])('with a report whose "%s" is %j is refused', (field, value) => {
    expect(() => handoverMessages.parse(JSON.stringify({ type: 'end', report: different(exampleReport, field, value) }))).toThrow(/with a valid "report", found/)
  })

  it.each([['successor', null], ['durations.launch', null], ['connections.later', 1], ['predecessor.later', 'x'], ['later', {}]])('with a report whose "%s" is %j, as in another version, is read', (field, value) => {
    const message = { type: 'end', report: different(exampleReport, field, value) }
    expect(handoverMessages.parse(JSON.stringify(message))).toEqual(message)
  })

  it.each<[string, object]>([
    ['keys', { type: 'offer', protocol: 1, pid: 1, listeners: [{ name: 'tcp [::]:443', ticketKeys: 'c2VjcmV0', kind: 'quic' }] }],
    ['text', { type: 'later', text: 'secret "c2VjcmV0"' }],
    ['state, and what a client has sent', { type: 'move', connections: [{ kind: 1, unread: `c2VjcmV0${'x'.repeat(5_000)}`, state: '["c2VjcmV0"]' }] }]
  ])('of another version is quoted without its %s', (_what, message) => {
    expect(() => handoverMessages.parse(JSON.stringify(message))).toThrow(/^(?!.*c2VjcmV0).*found "\{.*…/)
  })

  it('that is long is quoted in part, with its length', () => {
    expect(() => handoverMessages.parse('x'.repeat(maxLineBytes))).toThrow(expect.objectContaining({ message: expect.stringMatching(/x… \(1048576 characters\)"\.$/) }))
    expect(() => handoverMessages.parse('x'.repeat(maxLineBytes))).toThrow(expect.objectContaining({ message: expect.not.stringContaining('x'.repeat(201)) }))
  })
})

it.each([[protocol - 2, false], [protocol - 1, true], [protocol, true], [protocol + 1, true], [protocol + 2, false]])('protocol %i is spoken: %s', (theirs, answer) => {
  expect(speaks(theirs)).toBe(answer)
})
