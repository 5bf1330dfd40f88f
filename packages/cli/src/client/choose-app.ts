/**
 * Which of the running apps a command means: the app of a name, a package or a pid, or the only one.
 *
 * Where none fits, or several do, the Failure lists those that run. It asks no process: see find-apps.ts.
 */

import { nameOf, pidOf } from '../control/socket-names.js'
import { Failure } from '../failure.js'
import { nameOfPackage } from '../text.js'
import { describeSilences, type FoundApps, type Silence } from './find-apps.js'
import { titleOf, type App } from './group-apps.js'

/** The app of this name, package or pid; without one the only app. Throws a Failure that says which there are. */
export function chooseApp({ looked, apps, silent, left }: FoundApps, target: string | undefined): App {
  const running = apps.filter(({ file }) => file !== undefined)
  const list = (running.length > 0 ? running : apps).map((app) => (app.name === null ? titleOf(app) : `${app.name} (${app.keeper ? `keeper ${app.keeper.pid}` : `process ${app.processes[0]?.pid}`})`)).join(', ')
  const silently = describeSilences(silent).map((text) => ` ${text}.`).join('')
  if (target === undefined) {
    const [only, second] = running.length > 0 ? running : apps
    if (second) throw new Failure(`handover: several apps run: ${list}. Say which one, by name or pid.`)
    if (only) return only
    if (silently !== '') throw new Failure(`handover: nobody answers (looked in ${looked}).${silently} Nothing was asked.`)
    throw new Failure(`handover: no app of this user runs (looked in ${looked}). Start one, or set HANDOVER_DIR to where it looks for its own.`)
  }
  const pid = /^\d+$/.test(target) ? Number(target) : undefined
  const wanted = nameOfPackage(target)
  const app = apps.find(({ name }) => name === target) ?? (target.startsWith('@') ? apps.find(({ name }) => name === wanted) : undefined) ?? apps.find(({ keeper, processes }) => pid !== undefined && (keeper?.pid === pid || processes.some((process) => process.pid === pid)))
  if (app) return app
  const isMeant = ({ file, pid: holder }: Silence): boolean =>
    pid === undefined ? [target, wanted].includes(nameOf(file)) : (pidOf(file) ?? holder) === pid
  const deaf = silent.filter(isMeant)
  if (deaf.length > 0) throw new Failure(`handover: ${describeSilences(deaf).join('. ')}. Nothing was asked.`)
  if (left.includes(target)) throw new Failure(`handover: ${target} does not run: its socket in ${looked} is left from a process that was killed. Start it again.`)
  throw new Failure(`handover: no app ${JSON.stringify(target)} runs (looked in ${looked}).${silently} ${apps.length > 0 ? `These run: ${list}.` : 'Start it, or set HANDOVER_DIR to where it looks for its own.'}`)
}

/** Where the app can be asked to do something. Throws a Failure where nothing serves any more. */
export function fileOf(app: App): string {
  // A worker would ask it, and wait; one that is stopped would be started again.
  if (app.deafKeeper?.lives) throw new Failure(`handover: the keeper of ${titleOf(app)}, ${app.deafKeeper.what}. Its workers serve. Nothing was asked.`)
  if (app.file !== undefined) return app.file
  const [first] = app.processes
  throw new Failure(`handover: ${titleOf(app)} is ${first?.state ?? 'gone'}, and nothing serves in its place. Start it again.`)
}
