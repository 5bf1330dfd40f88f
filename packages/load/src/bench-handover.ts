/**
 * What a handover takes: a minimal http server reloaded 20 times under light load, and how long each phase took.
 *
 * The phases come from the reports that the server writes to stderr, as lines with JSON after `handover report `; the time
 * from the signal to the first new answer is the client's. Most of it is the boot of Node, not Handover.
 */

import { sleep } from './clock.js'
import { Example, scriptOf } from './example.js'
import { startLoadProcess } from './process.js'
import { count, median, ms, table } from './table.js'

const reloads = 20
const pauseMs = 200
const marker = 'handover report '

export async function benchHandover(): Promise<void> {
  const phases = new Map<string, number[]>()
  let reports = 0
  const example = await Example.start({
    script: scriptOf('http'),
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
    console.log(table([['ms', 'median', 'max', 'of'], ...rows.map(([name, values]) => [name, ms(median(values)), ms(Math.max(...values)), count(values.length)])]))
    console.log(`\n${count(result.requests)} requests, ${count(result.lost)} lost, ${reports} reports of ${reloads} reloads`)
    if (reports === 0) console.log(`The server wrote no line with "${marker.trim()}": the phases are not known.`)
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
  const at = line.indexOf(marker)
  if (at === -1) return undefined
  try {
    const report = JSON.parse(line.slice(at + marker.length)) as { readonly result?: string; readonly durations?: Record<string, unknown> }
    if (report.result === 'drained') return { drain: report.durations?.['drain'] }
    return report.result === 'switched' ? report.durations : undefined
  } catch {
    return undefined // a line of another kind
  }
}
