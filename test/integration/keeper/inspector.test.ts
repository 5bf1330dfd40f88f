import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { freePorts } from '../../helpers/ask.js'
import { commandFile, inspectorIn } from '../../helpers/internals.js'
import { exists, Program, programPath, waitFor, type ProgramEvent } from '../../helpers/program.js'

describe('where options of Node open an inspector', () => {
  test.each([
    [[], undefined],
    [['--inspect-port=9230', '--require', 'x'], undefined],
    [['--inspect'], { host: '127.0.0.1', port: 9_229 }],
    [['--inspect=9230'], { host: '127.0.0.1', port: 9_230 }],
    [['--inspect-brk=0.0.0.0'], { host: '0.0.0.0', port: 9_229 }],
    [['--inspect-wait=localhost:0'], { host: 'localhost', port: 0 }],
    [['--inspect=[::1]:9231'], { host: '::1', port: 9_231 }],
    [['--inspect=9230', '--inspect-port=0.0.0.0:9232'], { host: '0.0.0.0', port: 9_232 }],
    [['--debug-port=9233', '--inspect'], { host: '127.0.0.1', port: 9_233 }]
  ])('%j: %j', (options, expected) => {
    expect(inspectorIn(options)).toEqual(expected)
  })
})

const program = `
  const { handover } = await import('@handover/core')
  const { default: http } = await import('node:http')
  const { default: inspector } = await import('node:inspector')
  const { print, printEvents } = await import(${JSON.stringify(programPath('print.mjs'))})
  printEvents(handover)
  handover(http.createServer(), { undoWindow: 0 }).listen(0, '127.0.0.1', () => {
    print('listening', { inspector: inspector.url(), execArgv: process.execArgv, mark: process.env.HANDOVER_INSPECTOR ?? null })
  })`

const freePort = async (): Promise<number> => (await freePorts(1))[0]!

const portIn = (event: ProgramEvent): number => Number(new URL(String(event['inspector'])).port)

describe('a server with --inspect', () => {
  test.each(['on the command line', 'in NODE_OPTIONS'])('%s has an inspector in each generation: the port that was asked for goes to the next one when it is free', async (where) => {
    const folder = mkdtempSync(path.join(import.meta.dirname, 'inspector-'))
    onTestFinished(() => { rmSync(folder, { recursive: true }) })
    const file = path.join(folder, 'server.mjs')
    writeFileSync(file, program)
    const port = await freePort()
    const option = `--inspect=127.0.0.1:${port}`
    const typed = where === 'on the command line'
    await using server = Program.start(file, typed ? { execArgv: [option] } : { env: { NODE_OPTIONS: option } })
    const first = await server.event('listening')
    expect(portIn(first)).toBe(port)

    await server.hangUp()
    const second = await server.event('listening', ({ generation }) => generation === 2)
    expect(portIn(second)).not.toBe(port)
    expect(server.stderr).toContain(`the inspector of process ${second.pid} is ${String(second['inspector'])}: 127.0.0.1:${port} belongs to another process`)

    await waitFor(() => !exists(first.pid))
    await server.hangUp()
    const third = await server.event('listening', ({ generation }) => generation === 3)
    expect(portIn(third)).toBe(port)
    for (const { execArgv, mark } of [first, second, third]) expect({ execArgv, mark }).toEqual(
      { execArgv: typed ? [option] : [], mark: null }
    )
  })

  test('in several workers has one inspector in each', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-inspector-'))
    onTestFinished(() => { rmSync(folder, { recursive: true }) })
    const file = path.join(folder, 'server.cjs')
    writeFileSync(file, `require('http').createServer().listen(0, '127.0.0.1', () => { console.log('inspector ' + require('inspector').url()) })`)
    const port = await freePort()
    await using keeper = Program.start(commandFile, { args: ['run', '--workers', '2', `--inspect=127.0.0.1:${port}`, file], env: { HANDOVER_DIR: folder } })
    const lines = await keeper.until(() => { const found = keeper.lines.filter((line) => line.startsWith('inspector ws:')); return found.length === 2 && found })
    const ports = lines.map((line) => Number(new URL(line.slice('inspector '.length)).port))
    expect(ports.filter((each) => each === port)).toHaveLength(1)
    expect(new Set(ports).size).toBe(2)
  })
})
