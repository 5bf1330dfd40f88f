/** Options and variables: each default, each value that is right or wrong, and who wins. */

import { HandoverError, type HandoverOptions } from '@handover/core'
import { logLine, unavailable } from '@handover/core/internal'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { checkReloadOptions, mistypedVariables, SettingsOfProcess, variableOf } from '../../helpers/internals.js'

const settings = (options: HandoverOptions = {}, env: NodeJS.ProcessEnv = {}) => {
  const all = new SettingsOfProcess(env)
  all.add(options)
  return all.get()
}

const milliseconds = ['readyTimeout', 'drainTimeout', 'undoWindow', 'linger'] as const
type Key = Parameters<typeof variableOf>[0]

const wrong: readonly (readonly [Key, unknown])[] = [
  ...milliseconds.flatMap((key) => [-1, 1.5, NaN, Infinity, 2 ** 31, '1s', '', '-1', '1e3', null, true, {}].map((value) => [key, value] as const)),
  ...['', '.hidden', 'a/b', '../a', 'a b', 'ä', 'x'.repeat(65), 7, null].map((value) => ['name', value] as const),
  ...['HUP', 'sighup', 'SIGKILL', 'SIGSTOP', 'SIGTERM', 'SIGINT', 'SIGUSR1', 'SIGNONE', 'constructor', 1, null].map((value) => ['reloadSignal', value] as const),
  ...['ready', '', 'MANUAL', true, null].map((value) => ['readyWhen', value] as const),
  ...['maybe', '', 0, 1, null, {}].map((value) => ['move', value] as const),
  ...['', 'items', 'http://a/', '/ä', '/a items', true, 1, null, {}, [], ['/', ''], ['/a b'], [1], `/${'x'.repeat(2_001)}`].map((value) => ['warmUp', value] as const)
]

describe('the defaults', () => {
  it('are those of the documentation', () => {
    expect(settings()).toEqual({ name: undefined, readyTimeout: 60_000, drainTimeout: 30_000, undoWindow: 10_000, linger: 10_000, reloadSignal: 'SIGHUP', readyWhen: 'listening', warmUp: '', move: true, watchdog: true })
  })

  it('stand where an option is undefined or a variable is empty', () => {
    expect(settings({ name: undefined, linger: undefined } as unknown as HandoverOptions, { HANDOVER_LINGER: '', HANDOVER_NAME: '' })).toEqual(settings())
  })
})

describe('a value', () => {
  it.each<[Key, unknown, string]>([
    ...milliseconds.flatMap((key): [Key, unknown, string][] => [[key, 0, '0'], [key, 250, '250'], [key, 2 ** 31 - 1, '2147483647']]),
    ['name', 'shop', 'shop'], ['name', 'A-b_c.9', 'A-b_c.9'], ['name', 'x'.repeat(64), 'x'.repeat(64)],
    ['reloadSignal', 'SIGUSR2', 'SIGUSR2'], ['reloadSignal', 'SIGHUP', 'SIGHUP'],
    ['readyWhen', 'manual', 'manual'], ['readyWhen', 'listening', 'listening'],
    ['warmUp', '/', '/'], ['warmUp', '/?a=%20,b', ' /?a=%20,b '], ['warmUp', '/a /b', '/a\n  /b'],
    ['move', true, 'on'], ['move', true, 'TRUE'], ['move', true, '1'], ['move', false, 'off'], ['move', false, 'no'], ['move', false, '0'], ['move', false, 'false']
  ])('of %s can be %j, as an option and as a variable', (key, value, text) => {
    expect(settings({ [key]: value })[key]).toBe(value)
    expect(settings({}, { [variableOf(key)]: text })[key]).toBe(value)
  })

  it('of move can be an object, or "plain": two calls that say the same agree', () => {
    const all = new SettingsOfProcess({})
    all.add({ move: { http2: false } })
    all.add({ move: { http2: false, tls: true } })
    expect(all.get().move).toEqual({ tls: true, http2: false })
    expect(() => { all.add({ move: { tls: false } }) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    expect(settings({ move: { http2: true } }).move).toBe(true)
    expect(settings({ move: { http2: false } }, { HANDOVER_MOVE: 'plain' }).move).toEqual({ tls: false, http2: false })
  })

  it('of warmUp can be a list, and false turns off what the program asks for', () => {
    const all = new SettingsOfProcess({})
    all.add({ warmUp: ['/a', '/b?c'] })
    all.add({ warmUp: ['/a', '/b?c'] })
    expect(all.get().warmUp).toBe('/a /b?c')
    expect(() => { all.add({ warmUp: '/a' }) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    expect(settings({ warmUp: '/' }, { HANDOVER_WARM_UP: 'off' }).warmUp).toBe('')
    expect(settings({ warmUp: false }).warmUp).toBe('')
  })

  it.each([{ http3: false }, { http2: 'maybe' }, { tls: null }, []])('of move cannot be %j', (move) => {
    expect(() => settings({ move } as unknown as HandoverOptions)).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
  })

  it.each(wrong)('of %s cannot be %j: the error names the option, what was found and what to do', (key, value) => {
    expect(() => settings({ [key]: value })).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringMatching(new RegExp(`^the option ${key} is .*, expected .+\\. Nothing was changed\\. Correct the value\\.$`, 's')) }))
  })

  it.each(wrong.filter(([, value]) => typeof value === 'string' && value !== ''))('of the variable of %s cannot be %j: the error names the variable', (key, value) => {
    expect(() => settings({}, { [variableOf(key)]: value as string })).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringContaining(`${variableOf(key)} is `) }))
  })

  it('of reloadSignal cannot be SIGUSR1, because that opens the inspector', () => {
    expect(() => settings({ reloadSignal: 'SIGUSR1' })).toThrow(/SIGUSR1 opens the inspector/)
  })
})

describe('the settings of a process', () => {
  it.each<[Key, string]>([
    ['name', 'HANDOVER_NAME'], ['readyTimeout', 'HANDOVER_READY_TIMEOUT'], ['drainTimeout', 'HANDOVER_DRAIN_TIMEOUT'], ['undoWindow', 'HANDOVER_UNDO_WINDOW'],
    ['linger', 'HANDOVER_LINGER'], ['reloadSignal', 'HANDOVER_RELOAD_SIGNAL'], ['readyWhen', 'HANDOVER_READY_WHEN'], ['move', 'HANDOVER_MOVE'], ['watchdog', 'HANDOVER_WATCHDOG']
  ])('have a variable for %s: %s', (key, variable) => {
    expect(variableOf(key)).toBe(variable)
  })

  it('take a variable rather than the option of the program', () => {
    expect(settings({ drainTimeout: 1 }, { HANDOVER_DRAIN_TIMEOUT: '2' }).drainTimeout).toBe(2)
  })

  it('collect the options of several servers, and take the same value twice', () => {
    const all = new SettingsOfProcess({})
    all.add({ linger: 5 })
    all.add({ linger: 5, name: 'shop' })
    expect(all.get()).toMatchObject({ linger: 5, name: 'shop' })
  })

  it('do not take two values for one option, and name both', () => {
    const all = new SettingsOfProcess({})
    all.add({ linger: 5 })
    expect(() => { all.add({ linger: 6 }) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringMatching(/the option linger is 6 here and 5 elsewhere/) }))
    expect(all.get().linger).toBe(5)
  })

  it('do not take an option that does not exist, and name those that do', () => {
    expect(() => settings({ drainTimout: 5 } as HandoverOptions)).toThrow(/the option "drainTimout" does not exist\. Nothing was changed\. Did you mean drainTimeout\? Known options: name, readyTimeout, .+, log\./)
    expect(() => settings({ port: 5 } as HandoverOptions)).toThrow(/the option "port" does not exist\. Nothing was changed\. Known options: name, /)
    expect(() => settings({ toString: 5 } as unknown as HandoverOptions)).toThrow(HandoverError)
  })

  it('are told of variables that look like one of theirs, and of no others', () => {
    const env = { HANDOVER_DRAIN_TIMOUT: '5', HANDOVER_names: '', HANDOVER_READYTIMEOUT: '1', HANDOVER_DRI: '/run', HANDOVER_DIR: '/run', HANDOVER_VERSION: '1', HANDOVER_LINGER: '1', DRAIN_TIMEOUT: '1' }
    expect(mistypedVariables(env)).toEqual(['DRAIN_TIMOUT', 'names', 'READYTIMEOUT', 'DRI'].map((name, index) =>
      `the variable HANDOVER_${name} means nothing, and is ignored. Did you mean HANDOVER_${['DRAIN_TIMEOUT', 'NAME', 'READY_TIMEOUT', 'DIR'][index]}?`))
  })

  it.each([['of', true], ['', false], ['on', false], ['OFF\r', false], ['1', false]])('say where HANDOVER=%j is neither on nor off', (HANDOVER, isSaid) => {
    expect(mistypedVariables({ HANDOVER })).toEqual(isSaid ? ['the variable HANDOVER is "of", and is ignored: only HANDOVER=off means something.'] : [])
  })

  it('are as before where one of several options is wrong', () => {
    const all = new SettingsOfProcess({})
    expect(() => { all.add({ linger: 5, drainTimeout: -1 }) }).toThrow(/the option drainTimeout is -1/)
    expect(() => { all.add({ linger: 6, drainTimout: 1 } as HandoverOptions) }).toThrow(/the option "drainTimout" does not exist/)
    all.add({ linger: 7 })
    expect(all.get()).toEqual({ ...settings(), linger: 7 })
  })

  it.each([null, 5, 'name', true, [], () => undefined])('do not take %j for options', (options) => {
    expect(() => settings(options as unknown as HandoverOptions)).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringMatching(/^what was given as options is .+, expected an object\./) }))
  })

  it('take a variable without the spaces around it, and one of spaces alone as none', () => {
    const env = { HANDOVER_NAME: ' shop', HANDOVER_LINGER: ' 5 ', HANDOVER_READY_WHEN: 'manual\r', HANDOVER_RELOAD_SIGNAL: 'SIGUSR2\n', HANDOVER_MOVE: ' off ', HANDOVER_DRAIN_TIMEOUT: ' ' }
    expect(settings({}, env)).toEqual({ ...settings(), name: 'shop', linger: 5, readyWhen: 'manual', reloadSignal: 'SIGUSR2', move: false })
  })

  it('leave the close hook and the log to the process', () => {
    expect(settings({ onClose: () => undefined, log: () => undefined })).toEqual(settings())
  })
})

describe('the options of reload()', () => {
  it.each([undefined, null, {}, { withoutState: true, allowDrop: undefined }, 'SIGUSR2', 12, new Date()])('may be %j', (options) => {
    checkReloadOptions(options)
  })

  it.each([
    [{ withoutstate: true }, 'the option "withoutstate" does not exist. Nothing was changed. Did you mean withoutState? Known options: withoutState, allowDrop.'],
    [{ fresh: true }, 'the option "fresh" does not exist. Nothing was changed. Known options: withoutState, allowDrop.'],
    [{ withoutState: 'false' }, "the option withoutState is 'false', expected true or false. Nothing was changed. Correct the value."],
    [{ allowDrop: 1 }, 'the option allowDrop is 1, expected true or false. Nothing was changed. Correct the value.']
  ])('cannot be %j', (options, message) => {
    expect(() => { checkReloadOptions(options) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION', message }))
  })
})

describe('the variables without an option', () => {
  afterEach(() => { vi.unstubAllEnvs() })

  it.each(['off', 'OFF', ' off ', 'off\r', 'false', '0'])('HANDOVER=%j turns everything off', (value) => {
    vi.stubEnv('HANDOVER', value)
    expect(unavailable()).toBe('HANDOVER=off')
  })

  it.each(['', 'on', '1', 'office'])('HANDOVER=%j does not', (value) => {
    vi.stubEnv('HANDOVER', value)
    expect(unavailable()).toBeUndefined()
  })

  it.each([['json', true], ['JSON\r', true], ['text', false], ['', false]])('HANDOVER_LOG=%j makes lines of JSON: %s', (value, isJson) => {
    vi.stubEnv('HANDOVER_LOG', value)
    expect(logLine('info', 'hello').startsWith('{')).toBe(isJson)
  })
})
