/**
 * What a handover takes: a minimal http server reloaded 20 times under light load, and how long each phase took; then 20 handovers
 * to processes that had booted before, which leaves the handover's own cost: with one listener, and with 200.
 *
 * The phases come from the reports that the server writes to stderr, as lines with JSON after reportMarker; the time
 * from the signal to the first new answer is the client's. Most of it is the boot of Node, not Handover.
 */

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { probe } from '../client/client.js'
import { sleep } from '../client/clock.js'
import { Example, freePort } from '../example.js'
import { reportMarker } from '../client/messages.js'
import { startLoadProcess } from '../client/process.js'
import { count, median, ms, table } from '../table.js'
import { untilReloadedOnce } from './compiled-form.js'

const reloads = 20
const pauseMs = 200
const server = fileURLToPath(new URL('server.js', import.meta.url))

export async function benchHandover(): Promise<void> {
  console.log('Reload by SIGHUP: most of it is the boot of Node.\n')
  await benchReload()
  console.log('\nHandover between two processes that have booted: from its first word to the last accept of the predecessor.\n')
  await benchBooted(1)
  console.log()
  await benchBooted(200)
}

/** Processes that wait with everything loaded and take over by name, one from the other. */
async function benchBooted(listeners: number): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  const versionFile = path.join(folder, 'version.txt')
  writeFileSync(versionFile, '1')
  const port = await freePort()
  const env = {
    ...process.env,
    HANDOVER_NAME: 'bench', HANDOVER_DIR: path.join(folder, 'control'), HANDOVER_UNDO_WINDOW: '0',
    APP_VERSION_FILE: versionFile, PORT: String(port), WAIT: '1', LISTENERS: String(listeners)
  }
  const commits: Record<string, number>[] = []
  const stalls: number[] = []
  const boot = async (): Promise<{ go: () => void; switched: Promise<unknown>; kill: () => void }> => {
    const child = spawn(process.execPath, [server], { env, stdio: ['pipe', 'ignore', 'pipe'] })
    const lines = createInterface({ input: child.stderr })
    lines.on('line', (line) => { if (line.startsWith('stall ')) stalls.push(Number(line.slice('stall '.length))) })
    const booted = new Promise<void>((resolve) => lines.on('line', (line) => { if (line === 'booted') resolve() }))
    const switched = new Promise<void>((resolve) => lines.on('line', (line) => {
      const durations = durationsOf(line)
      if (durations === undefined || typeof durations['commit'] !== 'number') return
      commits.push(durations as Record<string, number>)
      resolve()
    }))
    await booted
    return { go: () => child.stdin.write('\n'), switched, kill: () => child.kill('SIGKILL') }
  }
  const running = new Set<() => void>()
  try {
    let current = await boot()
    running.add(current.kill)
    current.go()
    while ((await probe({ host: '127.0.0.1', port })).answer === undefined) await sleep(20)
    const takeOver = async (): Promise<void> => {
      const next = await boot()
      running.add(next.kill)
      next.go()
      await current.switched
      current = next
    }
    await untilReloadedOnce(path.join(folder, 'control'), takeOver)
    for (const list of [commits, stalls]) list.length = 0
    for (let index = 0; index < reloads; index++) await takeOver()
    const own = commits.map(({ prepare, commit }) => (prepare ?? 0) + (commit ?? 0))
    const rows = [['offer to ready', commits.map((one) => one['prepare'] ?? 0)], ['ready to the last accept', commits.map((one) =>
      one['commit'] ?? 0)], ['offer to the last accept', own], ['longest stall of the predecessor', stalls]] as const
    console.log(table([[
      `ms, ${count(listeners)} ${listeners === 1 ? 'listener' : 'listeners'}`, 'median', 'max', 'of'
    ], ...rows.map(([name, values]) => [name, median(values).toFixed(2), Math.max(...values).toFixed(2), count(values.length)])]))
  } finally {
    for (const kill of running) kill()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function benchReload(): Promise<void> {
  const phases = new Map<string, number[]>()
  let reports = 0
  const example = await Example.start({
    script: server,
    version: '0',
    env: { HANDOVER_UNDO_WINDOW: '1000', HANDOVER_LINGER: '1000' },
    onStderr: (line) => {
      const durations = durationsOf(line)
      if (durations === undefined) return
      reports += 1
      for (const [phase, took] of Object.entries(durations)) {
        if (typeof took === 'number') phases.set(phase, [...phases.get(phase) ?? [], took])
      }
    }
  })
  const load = startLoadProcess(example.target, { keepAlive: { clients: 4, thinkMs: 5 }, newConnections: { clients: 1, thinkMs: 5 } })
  try {
    let pid = (await load.until(({ answers }) => answers > 0)).versions[0]!.pid || example.firstPid
    const firstAnswers: number[] = []
    for (let index = 1; index <= reloads; index++) {
      await sleep(pauseMs)
      const reloaded = await example.reload(load, pid, String(index))
      pid = reloaded.pid
      firstAnswers.push(reloaded.firstAnswerMs)
    }
    const result = await load.stop()
    await example.end(30_000, [pid]) // the last reports come with the last ends
    const rows = [...phases, ['signal to first new answer', firstAnswers] as const]
    console.log(table([[
      'ms', 'median', 'max', 'of'
    ], ...rows.map(([name, values]) => [name, ms(median(values)), ms(Math.max(...values)), count(values.length)])]))
    console.log(`\n${count(result.requests)} requests, ${count(result.lost)} lost, ${reports} reports of ${reloads} reloads`)
    if (reports === 0) console.log(`The server wrote no line with "${reportMarker.trim()}": the phases are not known.`)
  } finally {
    load.kill()
    await example.end(2000)
  }
}

/**
 * A phase that did not happen (yet) is null. A predecessor reports twice: at the switch, and at the end of its drain with all
 * phases again; so of the second only the drain is counted.
 */
function durationsOf(line: string): Record<string, unknown> | undefined {
  const at = line.indexOf(reportMarker)
  if (at === -1) return undefined
  try {
    const report = JSON.parse(line.slice(at + reportMarker.length)) as {
      readonly result?: string; readonly durations?: Record<string, unknown>
    }
    if (report.result === 'drained') return { drain: report.durations?.['drain'] }
    return report.result === 'switched' ? report.durations : undefined
  } catch {
    return undefined // a line of another kind
  }
}
