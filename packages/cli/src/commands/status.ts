/** `handover status`: once, or again every second, or as a page. */

import { setTimeout as wait } from 'node:timers/promises'
import { chooseApp } from '../client/choose-app.js'
import { findApps, silencesBeside, type FoundApps } from '../client/find-apps.js'
import type { App } from '../client/group-apps.js'
import type { Command } from '../command-line/arguments.js'
import { describeApps } from './status-text.js'

const everyMs = 1_000
const home = '\u{1b}[H\u{1b}[2J\u{1b}[3J'

/** Answers the exit status. Throws a Failure if nothing runs. */
export async function showStatus({ target, watch, json, web }: Extract<Command, { is: 'status' }>): Promise<number> {
  if (web) return await (await import('./status-web.js')).serveStatus(web, target)
  if (!watch) {
    const found = await findApps()
    process.stdout.write(textOf(found, chosen(found, target), json))
    return 0
  }
  const stopped = new AbortController()
  process.once('SIGINT', () => { stopped.abort() })
  // The reader is gone.
  process.stdout.once('error', () => { stopped.abort() })
  while (!stopped.signal.aborted) {
    const found = await findApps()
    const apps = target === undefined ? found.apps : chosen(found, target)
    const text = apps.length > 0 || json ? textOf(found, apps, json, true) : `no app runs (looked in ${found.looked})\n`
    process.stdout.write(json || !process.stdout.isTTY ? text : `${home}${text}`)
    await wait(everyMs, undefined, { signal: stopped.signal }).catch(() => undefined)
  }
  return 0
}

const chosen = (found: FoundApps, target: string | undefined): readonly App[] =>
  (target === undefined && found.apps.length > 0 ? found.apps : [chooseApp(found, target)])

function textOf(found: FoundApps, apps: readonly App[], json: boolean, onOneLine = false): string {
  if (json) {
    const shown = apps.map(({ file: _, ownFiles: __, ...app }) => app)
    return `${JSON.stringify({ ok: true, apps: shown }, undefined, onOneLine ? undefined : 2)}\n`
  }
  const { isTTY, columns } = process.stdout
  const width = isTTY ? Math.min(Math.max(columns, 60), 100) : 80
  const colours = isTTY && (process.env['NO_COLOR'] ?? '') === ''
  const deaf = silencesBeside(found, apps).map((text) => `${text}\n`)
  return [describeApps(apps, { width, colours, now: Date.now() }), ...(deaf.length > 0 ? ['\n', ...deaf] : [])].join('')
}
