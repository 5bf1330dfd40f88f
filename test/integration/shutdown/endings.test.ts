/**
 * A program that knows nothing of Handover ends under `handover run` as it does with node alone: the same program is run both ways, and
 * every generation takes the same steps, once, with the same end. Meanwhile clients ask, and lose nothing.
 */

import { startLoad, type Loss } from '@handover/load'
import { describe, expect, test } from 'vitest'
import { freePorts, get } from '../../helpers/ask.js'
import { Program, programPath, waitFor } from '../../helpers/program.js'
import { KeptApp } from '../../helpers/kept-app.js'

const script = programPath('endings.mjs')

interface End {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** Of the one process. */
  readonly steps: readonly string[]
}

/** The lines of a program, by process. */
function stepsOf(lines: readonly string[], pid: number): string[] {
  return lines.filter((line) => line.startsWith(`${pid}: `)).map((line) => line.slice(`${pid}: `.length))
}

async function withNode(kind: string, signal: NodeJS.Signals): Promise<End> {
  const [port = 0] = await freePorts(1)
  await using program = Program.start(script, { env: { KIND: kind, PORT: String(port) } })
  await waitFor(async () => await get({ port }).then(() => true, () => false))
  process.kill(program.pid, signal)
  const end = await program.ended
  await program.closed
  return { ...end, steps: stepsOf(program.lines, program.pid) }
}

const terminated = [
  'server.close(callback), then the pool, then exit(0), else exit(1)',
  'all servers that it has made are closed, and each without an error',
  'close() twice, and what the server says of itself',
  'await server[Symbol.asyncDispose]() in a listener that is called once, and nothing that ends the process',
  'one listener for SIGTERM and SIGINT, each called once',
  'exit() at once, with a status of its own',
  'several listeners, of which the second throws',
  'an async listener that rejects',
  'the signal again to itself, when only its own listeners are there',
  'the signal again to itself, in a listener that is called once, after a while',
  'the signal again to itself at once, while another listener is there',
  '@godaddy/terminus',
  'http-terminator',
  'http-graceful-shutdown',
  'stoppable',
  'close-with-grace',
  'Fastify with close-with-grace, as its templates have it',
  'Hono, as its documents have it',
  'Nest with enableShutdownHooks()'
].map((kind) => [kind, 'SIGTERM', 'to the keeper'] as const)

// Ctrl-C and a service manager signal every process; the keeper alone gets what a container is sent.
const ofTheGroup = [
  ['one listener for SIGTERM and SIGINT, each called once', 'SIGINT', 'to the process group'],
  ['close-with-grace', 'SIGINT', 'to the process group'],
  ['exit() at once, with a status of its own', 'SIGTERM', 'to the process group'],
  ['the signal again to itself, in a listener that is called once, after a while', 'SIGTERM', 'to the process group']
] as const

/**
 * From the stop on the port is closed, and a connect is refused. A worker that hears the signal itself stops before the keeper has let go
 * of its copy of the listener: a new connection may be reset then, and no other.
 */
const atClosedPort = ({ reason, request }: Loss, to: string): boolean =>
  reason === 'refused' || (to === 'to the process group' && request <= 1 && (reason === 'reset' || reason === 'connect'))

describe.concurrent('the end is that of node alone, at a reload and at a stop, and no request is lost', () => {
  test.for([...terminated, ...ofTheGroup])('%s (%s %s)', async ([kind, signal, to]) => {
    const alone = await withNode(kind, signal)
    expect(alone.steps.length, 'it does something at its end').toBeGreaterThan(0)

    await using app = await KeptApp.start(script, { env: { KIND: kind } })
    const load = startLoad({ host: '127.0.0.1', port: app.port }, { keepAlive: { clients: 2, thinkMs: 10 }, newConnections: { clients: 1, thinkMs: 20 }, expectStatus: 200 })
    await load.until(({ answers }) => answers > 5)
    const [first] = await app.servers()
    expect(await app.reload('--bake', '0', '--wait')).toMatchObject({ ok: true })
    const [second] = await app.servers()
    process.kill(to === 'to the keeper' ? app.program.pid : -app.program.pid, signal)
    const { code } = await app.program.ended
    const { losses, answers } = await load.stop()
    await app.program.closed

    expect(answers).toBeGreaterThan(5)
    expect(losses.filter((loss) => !atClosedPort(loss, to))).toEqual([])
    // At a reload nobody sent a signal: SIGTERM it is.
    const reloaded = signal === 'SIGTERM' ? alone : await withNode(kind, 'SIGTERM')
    expect(stepsOf(app.program.lines, first!.pid), 'at the reload').toEqual(reloaded.steps)
    expect(stepsOf(app.program.lines, second!.pid), 'at the stop').toEqual(alone.steps)
    // Ended by the signal that it was sent, as it was asked to.
    expect(code).toBe(alone.signal === null ? alone.code : 0)
    expect(app.stderr).not.toMatch(/handover: (warn|error)/)
  })

  test('a cleanup that takes longer than five seconds ends while drainTimeout lasts', async () => {
    await using app = await KeptApp.start(script, { env: { KIND: 'a cleanup that takes CLEANUP_MS', CLEANUP_MS: '5500' } })
    const [worker] = await app.servers()
    process.kill(app.program.pid, 'SIGTERM')
    expect((await app.program.ended).code).toBe(0)
    await app.program.closed
    expect(stepsOf(app.program.lines, worker!.pid)).toEqual(['begins', 'ends', 'exit 0'])
  })

  test('a cleanup that the deadline cuts is told in the log and in the report', async () => {
    await using app = await KeptApp.start(script, { env: { KIND: 'a cleanup that takes CLEANUP_MS', CLEANUP_MS: '600000', HANDOVER_DRAIN_TIMEOUT: '1000' } })
    const { reports, switched } = await app.reload('--bake', '0', '--wait')
    expect(reports.at(-1)).toMatchObject({ result: 'drained', cleanupCut: 'SIGTERM' })
    const { pid } = switched[0]!.from!
    expect(app.stderr).toMatch(new RegExp(`warn: the program's own listeners for SIGTERM have not ended process ${pid} \\(generation 1\\) within \\d+ ms: it is ended now`))
    expect(stepsOf(app.program.lines, pid)).toEqual(['begins', 'exit 0'])
  })
})
