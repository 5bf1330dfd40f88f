/** Which of the running apps (find-apps.ts) a command means: by name, package or pid, or the only one. If none fits, says which run. */

import { placesElsewhere } from '@handover/core/internal'
import { nameOf, pidOf } from '../control/socket-names.js'
import { nearest } from '../command-line/suggest.js'
import { Failure } from '../failure.js'
import { nameOfPackage } from '../text.js'
import { describeSilences, type FoundApps, type Silence } from './find-apps.js'
import { titleOf, type App } from './group-apps.js'

/** The app of this name, package or pid; without a target the only app. Throws a Failure that lists the apps that run. */
export function chooseApp({ looked, apps, silent, left }: FoundApps, target: string | undefined): App {
  const running = apps.filter(({ file }) => file !== undefined)
  const list = (running.length > 0 ? running : apps).map((app) => {
    const { name, keeper, processes } = app
    return name === null ? titleOf(app) : `${name} (${keeper ? `keeper ${keeper.pid}` : `process ${processes[0]?.pid}`})`
  }).join(', ')
  const silences = describeSilences(silent).join('. ')
  const serving = 'Nothing was asked'
  const orElse = 'or set HANDOVER_DIR to the directory that its processes use'
  if (target === undefined) {
    const [only, second] = running.length > 0 ? running : apps
    if (second) throw new Failure({ what: `several apps run: ${list}`, todo: 'Say which one, by name or pid' })
    if (only) return only
    if (silences !== '') throw new Failure({ what: `no process answers (looked in ${looked}${placesElsewhere()}). ${silences}`, serving })
    throw new Failure({ what: `no app of this user runs (looked in ${looked}${placesElsewhere()})`, todo: `Start one, ${orElse}` })
  }
  const pid = /^\d+$/.test(target) ? Number(target) : undefined
  const wanted = nameOfPackage(target)
  const hasPid = ({ keeper, processes }: App): boolean => keeper?.pid === pid || processes.some((process) => process.pid === pid)
  const app = apps.find(({ name }) => name === target) ?? (target.startsWith('@') ? apps.find(({ name }) => name === wanted) : undefined)
  if (app) return app
  const [found, another] = pid === undefined ? [] : apps.filter(hasPid)
  if (another) throw new Failure({ what: `several apps have a process ${target}, in different containers: ${list}`, serving, todo: 'Say which one, by name' })
  if (found) return found
  const isMeant = ({ file, pid: holder }: Silence): boolean =>
    pid === undefined ? [target, wanted].includes(nameOf(file)) : (pidOf(file) ?? holder) === pid
  const deaf = silent.filter(isMeant)
  if (deaf.length > 0) throw new Failure({ what: describeSilences(deaf).join('. '), serving })
  if (left.includes(target)) {
    throw new Failure({ what: `${target} does not run: its socket in ${looked} is left from a process that was killed`, todo: 'Start it again' })
  }
  const what = `no app ${JSON.stringify(target)} runs (looked in ${looked}${placesElsewhere()})`
  const meant = nearest(target, apps.flatMap(({ name }) => name ?? []))
  const these = `${meant === undefined ? '' : `Did you mean ${meant}? `}These run: ${list}`
  throw new Failure({ what, serving: silences, todo: apps.length > 0 ? these : `Start it, ${orElse}` })
}

/** The control socket for requests to the app. Throws a Failure if nothing serves any more. */
export function fileOf(app: App): string {
  // A worker would ask its keeper, and wait. A worker that is stopped would be started again.
  if (app.deafKeeper?.lives) throw new Failure({ what: `the keeper of ${titleOf(app)}, ${app.deafKeeper.what}`, serving: 'Its workers serve. Nothing was asked' })
  if (app.file !== undefined) return app.file
  const [first] = app.processes
  throw new Failure({
    what: `${titleOf(app)} is ${first?.state ?? 'gone'}`, serving: 'Nothing serves in its place', todo: 'Start it again'
  })
}
