/**
 * `handover run` as PID 1 of a PID namespace, as in a container: orphans, signals, streams, the exit status. Takes root and Linux.
 */

import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { commandFile } from '../../helpers/built.js'
import { get } from '../../helpers/ask.js'
import { childrenOf, nothingLost } from '../../helpers/invariants.js'
import { descriptorsOf, exists, programPath, waitFor } from '../../helpers/program.js'
import { Keeping, namespace, type KeepingOptions } from '../../helpers/keeping.js'
import { listeningPorts } from '../../helpers/net-tables.js'

const refused = process.platform !== 'linux' ? 'no Linux' : (spawnSync('unshare', [...namespace, 'true'], { encoding: 'utf8' }).stderr ?? 'no unshare')

beforeEach(({ skip }) => { skip(refused !== '', `a PID namespace cannot be made here: ${refused}`) })

/** The pid inside its innermost namespace; NaN where the process has ended. */
function pidInside(pid: number): number {
  try {
    return Number(/^NSpid:.*\s(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  } catch {
    return NaN
  }
}

/** An app whose keeper is PID 1. Pids of events are those of the namespace; what is signalled from here has others. */
async function first(options: KeepingOptions = {}): Promise<{ app: Keeping; keeper: number; workers: () => Map<number, number> }> {
  const app = await Keeping.start({ ...options, isFirst: true })
  const [keeper] = childrenOf(app.program.pid) as [number]
  expect(pidInside(keeper)).toBe(1)
  // From the namespace's pid to ours.
  const workers = (): Map<number, number> => new Map(childrenOf(keeper).map((pid) => [pidInside(pid), pid]))
  return { app, keeper, workers }
}

describe('the keeper as PID 1', () => {
  it('reaps the orphans that come to it, and still notices when its own workers end', async () => {
    const { app, keeper, workers } = await first({ workers: 2, env: { ORPHANS: '5' } })
    await using _ = app
    const serving = await app.serves()
    const orphans = (await Promise.all(serving.map(async (pid) => await app.program.event('orphans', (event) => event.pid === pid)))).length
    expect(orphans).toBe(2)
    await waitFor(() => workers().size === 2)
    process.kill(workers().get(serving[0]!)!, 'SIGKILL')
    await app.program.event('orphans', ({ pid }) => !serving.includes(pid))
    const after = await app.serves()
    expect(after[1]).toBe(serving[1])
    expect(after[0]).not.toBe(serving[0])
    await waitFor(() => childrenOf(keeper).length === 2)
    expect((await app.status())?.keeper).toMatchObject({ pid: 1, crashes: 1 })
  })

  it('reloads on HUP without losing anything, and drains and ends with 0 on TERM; nothing of the namespace is left', async () => {
    const { app, keeper } = await first({ workers: 2, env: { HANDOVER_LINGER: '300' } })
    await using _ = app
    const before = await app.serves()
    const load = app.load()
    await load.until(({ answers }) => answers > 50)
    process.kill(keeper, 'SIGHUP')
    await app.program.stderrMatching(/reloaded: process \d+ \(generation 2\), process \d+ \(generation 2\) serve/)
    const after = await app.serves()
    expect(after.some((pid) => before.includes(pid))).toBe(false)
    nothingLost(await load.stop())
    const held = get(app.target, '/held')
    const { pid } = await app.program.event('held')
    process.kill(keeper, 'SIGTERM')
    await app.program.event('state', (event) => event.pid === pid && event['to'] === 'draining')
    const [worker] = childrenOf(keeper).filter((child) => pidInside(child) === pid)
    process.kill(worker!, 'SIGUSR2')
    expect((await held).status).toBe(200)
    expect(await app.program.ended).toEqual({ code: 0, signal: null })
    await waitFor(() => app.program.alive.length === 0)
    expect(app.files).toEqual([])
  })

  it.each([['SIGTERM', 143], ['SIGINT', 130]] as const)('drains on %s, and at a second one ends at once with %i', async (signal, status) => {
    const { app, keeper } = await first({ workers: 2 })
    await using _ = app
    const held = get(app.target, '/held').catch((error: unknown) => error)
    await app.program.event('held')
    process.kill(keeper, signal)
    await app.program.event('state', ({ to }) => to === 'draining')
    process.kill(keeper, signal)
    expect(await app.program.ended).toEqual({ code: status, signal: null })
    expect(await held).toBeInstanceOf(Error)
    await waitFor(() => app.program.alive.length === 0)
    expect(app.files).toEqual([])
  })

  it('passes on the signals that mean something to apps only, each once to each worker, and to the inspector of the workers', async () => {
    const { app, keeper, workers } = await first({ workers: 2, words: ['--inspect-port=0'] })
    await using _ = app
    const serving = await app.serves()
    for (const signal of ['SIGUSR2', 'SIGWINCH', 'SIGQUIT'] as const) {
      process.kill(keeper, signal)
      for (const pid of serving) await app.program.event('signal', (event) => event.pid === pid && event['signal'] === signal)
    }
    expect(app.program.events.filter(({ event }) => event === 'signal')).toHaveLength(6)
    process.kill(keeper, 'SIGUSR1')
    await app.program.until(() => (app.program.stderr.match(/Debugger listening on ws:/g) ?? []).length === 2)
    expect(await app.serves()).toEqual(serving)
    expect(workers().size).toBe(2)
    // The keeper answers, and has no listener of an inspector.
    expect((await app.status())?.keeper?.pid).toBe(1)
    expect(listeningPorts(keeper)).toEqual(listeningPorts(keeper).filter((port) => port === app.target.port))
  })

  it('gives its own standard streams to the workers, also after a reload', async () => {
    const { app, keeper, workers } = await first()
    await using _ = app
    const same = async (): Promise<void> => {
      const [pid] = await app.serves()
      const ours = descriptorsOf(keeper)
      await waitFor(() => {
        const theirs = descriptorsOf(workers().get(pid!)!)
        return theirs.get(1) === ours.get(1) && theirs.get(2) === ours.get(2)
      })
    }
    await same()
    expect(await app.reload('--bake', '0', '--wait')).toMatchObject({ ok: true })
    await same()
  })

  it.each([[['process.exit(0)'], 0], [['process.exit(7)'], 7], [['process.kill(process.pid, "SIGKILL")'], 137]])('ends with the status of what it ran: %j', (script, status) => {
    const ran = spawnSync('unshare', [...namespace, process.execPath, commandFile, 'run', programPath('says.mjs')], { env: { ...process.env, SCRIPT: script[0], NODE_OPTIONS: '' }, encoding: 'utf8', timeout: 60_000, killSignal: 'SIGKILL' })
    expect(ran.status).toBe(status)
  })

  it('leaves what the app writes as it is: bytes that are no text, lines without an end, on both streams', async () => {
    const bytes = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)), Buffer.from('no end of line')])
    const child = spawn('unshare', [...namespace, process.execPath, commandFile, 'run', programPath('says.mjs')], {
      env: { ...process.env, NODE_OPTIONS: '', SCRIPT: 'const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)); for (const stream of [process.stdout, process.stderr]) { stream.write(all); stream.write("no end of line") }' },
      stdio: ['ignore', 'pipe', 'pipe']
    })
    const [stdout, stderr] = await Promise.all([child.stdout.toArray(), child.stderr.toArray()])
    expect(Buffer.concat(stdout as Buffer[]).equals(bytes)).toBe(true)
    expect(Buffer.concat(stderr as Buffer[]).equals(bytes)).toBe(true)
  })

  it('is not replaced by another keeper, since its end would end the container: it says so, and goes on', async () => {
    const { app } = await first()
    await using _ = app
    const before = await app.serves()
    const { status, stderr } = await app.run('reload', '--keeper')
    expect(status).toBe(1)
    expect(stderr).toMatch(/HANDOVER_UNAVAILABLE.*the keeper is PID 1: its end would end the container\. It goes on\./s)
    expect(await app.serves()).toEqual(before)
  })

  it('is not ended by a signal that nobody listens for', async () => {
    const { app, keeper } = await first()
    await using _ = app
    const before = await app.serves()
    for (const signal of ['SIGPIPE', 'SIGALRM', 'SIGVTALRM', 'SIGXCPU'] as const) process.kill(keeper, signal)
    // SIGALRM is passed on, and ends the worker: another follows.
    await waitFor(async () => (await app.status())?.keeper?.crashes === 1)
    expect(await app.serves()).not.toEqual(before)
    expect(exists(keeper)).toBe(true)
    expect((await app.status())?.keeper?.pid).toBe(1)
    expect(path.basename(app.socket)).toBe('kept.sock')
    expect(before).toHaveLength(1)
  })
})
