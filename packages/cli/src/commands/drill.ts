/** `handover drill`: finds the app, and reloads it under load; where that is wanted, a picture of it is written. */

import { accessSync, constants, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { ReloadOutcome, ReloadRecord } from '@handover/core/internal'
import { chooseApp, fileOf } from '../client/choose-app.js'
import { findApps } from '../client/find-apps.js'
import { titleOf } from '../client/group-apps.js'
import type { DrillOptions } from '../command-line/arguments.js'
import { drill, type DrillWorld } from '../drill/drill.js'
import { Failure } from '../failure.js'
import { drillSvg, overSwitch } from '../report/drill-picture.js'
import { drillPage } from '../report/page.js'
import { recordOf, recordsOf } from '../report/picture.js'
import { number, plural, printableLines } from '../text.js'
import { outcomeOf, reloadGoesOn, sayAtInterrupt } from './reload.js'

const reloadTimeoutMs = 120_000

/** Answers the exit status. Throws a Failure if no app is found. */
export async function drillApp({ target, report, ...options }: DrillOptions): Promise<number> {
  if (report !== undefined) requireFolder(report)
  const app = chooseApp(await findApps(), target)
  const file = fileOf(app)
  return await drill({ ...options, listeners: [...new Set(app.processes.flatMap(({ listeners }) => listeners))] }, {
    reload: async () => {
      sayAtInterrupt(reloadGoesOn)
      const outcome = await outcomeOf(file, { wait: true }, reloadTimeoutMs)
      if (!outcome) throw new Error(`${titleOf(app)} ended before it could say what became of the reload`)
      return outcome
    },
    ...(report !== undefined && { draw: drawTo(report, target) }),
    print: (text) => { process.stdout.write(`${printableLines(text)}\n`) }
  })
}

const cannotWrite = (file: string, error: unknown, serving: string): Failure =>
  new Failure({ what: `cannot write ${file} (${(error as NodeJS.ErrnoException).code})`, serving, todo: 'Name another file' }, { command: 'drill' })

/** Before anything is reloaded. */
function requireFolder(file: string): void {
  try {
    accessSync(path.dirname(path.resolve(file)), constants.W_OK)
  } catch (error) {
    throw cannotWrite(file, error, 'Nothing was reloaded')
  }
}

function drawTo(file: string, target: string | undefined): NonNullable<DrillWorld['draw']> {
  return async ({ name, requests, lost, reload }, told, { beganAt, slices, reload: times }) => {
    const record = reload ? await recordFor(reload, target) : { at: beganAt + times.from, ms: times.to - times.from, handovers: [] }
    const title = `GET ${name}: ${plural(requests, 'request')}, ${number(lost)} lost.`
    const figures = { slices, beganAt, reload: times, record }
    const isPicture = file.endsWith('.svg')
    try {
      writeFileSync(file, isPicture ? `${drillSvg(title, figures, overSwitch(figures))}\n` : drillPage(title, told, figures, Date.now()))
    } catch (error) {
      process.stderr.write(`${cannotWrite(file, error, 'The drill was made').message}\n`)
    }
  }
}

/** As its keeper remembers it, which knows when each slot switched. */
async function recordFor(outcome: ReloadOutcome, target: string | undefined): Promise<ReloadRecord> {
  try {
    return recordsOf(chooseApp(await findApps(), target)).find(({ at }) => at === outcome.at) ?? recordOf(outcome)
  } catch {
    return recordOf(outcome)
  }
}
