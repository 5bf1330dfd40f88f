/** `handover report`: the last reloads of an app as a page of HTML, or as SVG, on standard output or in the browser of this desktop. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { chooseApp } from '../client/choose-app.js'
import { findApps } from '../client/find-apps.js'
import type { Command } from '../command-line/arguments.js'
import { Failure } from '../failure.js'
import { pageOf } from '../report/page.js'
import { svgOf } from '../report/picture.js'
import { byWhat } from '../text.js'

/** Some openers end at once, and some with the browser. */
const openMs = 5_000

/** Answers the exit status. Throws a Failure if nothing runs, or nothing can open a page. */
export async function report({ target, svg, open }: Extract<Command, { is: 'report' }>): Promise<number> {
  const app = chooseApp(await findApps(), target)
  const page = svg ? `${svgOf(app)}\n` : pageOf([app], Date.now())
  if (!open) {
    process.stdout.write(page)
    return 0
  }
  // For this user alone; the browser reads it after this command has ended.
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'handover-report-')), `report.${svg ? 'svg' : 'html'}`)
  writeFileSync(file, page)
  const opener = process.platform === 'darwin' ? 'open' : 'xdg-open'
  const problem = await openWith(opener, file)
  if (problem !== undefined) {
    const todo = `It is in ${file}: open it yourself, or take it to where there is a browser`
    throw new Failure({ what: `${opener} cannot open the page (${problem})`, todo }, { command: 'report' })
  }
  process.stdout.write(`${file}\n`)
  return 0
}

/** What went wrong. */
async function openWith(opener: string, file: string): Promise<string | undefined> {
  const child = spawn(opener, [file], { stdio: 'ignore', detached: true })
  try {
    const [code, signal] = await once(child, 'exit', { signal: AbortSignal.timeout(openMs) }) as [number | null, NodeJS.Signals | null]
    return code === 0 ? undefined : `it ended ${byWhat({ code, signal })}`
  } catch (error) {
    const { name, code, message } = error as NodeJS.ErrnoException
    return name === 'AbortError' ? undefined : code === 'ENOENT' ? 'it is not installed' : message
  } finally {
    child.unref()
  }
}
