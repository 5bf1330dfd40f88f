/** `handover drill`: finds the app, and reloads it under load. */

import { chooseApp, fileOf } from '../client/choose-app.js'
import { findApps } from '../client/find-apps.js'
import { titleOf } from '../client/group-apps.js'
import type { DrillOptions } from '../command-line/arguments.js'
import { drill } from '../drill/drill.js'
import { outcomeOf } from './reload.js'

const reloadTimeoutMs = 120_000

/** Answers the exit status. Throws a Failure if no app is found. */
export async function drillApp({ target, ...options }: DrillOptions): Promise<number> {
  const app = chooseApp(await findApps(), target)
  const file = fileOf(app)
  return await drill({ ...options, listeners: [...new Set(app.processes.flatMap(({ listeners }) => listeners))] }, {
    reload: async () => {
      const outcome = await outcomeOf(file, { wait: true }, reloadTimeoutMs)
      if (!outcome) throw new Error(`${titleOf(app)} ended before it could say what became of the reload`)
      return outcome
    },
    print: (text) => { process.stdout.write(`${text}\n`) },
    complain: (text) => { process.stderr.write(`${text}\n`) }
  })
}
