/** `handover report`: the last reload of an app as a page of HTML, or as SVG, on standard output. */

import { chooseApp } from '../client/choose-app.js'
import { findApps } from '../client/find-apps.js'
import type { Command } from '../command-line/arguments.js'
import { pageOf } from '../report/page.js'
import { svgOf } from '../report/picture.js'

/** Answers the exit status. Throws a Failure if nothing runs. */
export async function report({ target, svg }: Extract<Command, { is: 'report' }>): Promise<number> {
  const app = chooseApp(await findApps(), target)
  process.stdout.write(svg ? `${svgOf(app)}\n` : pageOf([app], Date.now()))
  return 0
}
