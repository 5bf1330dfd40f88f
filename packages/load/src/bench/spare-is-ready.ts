/** Whether the keeper of this name has a spare that has booted. It starts one some seconds after the last start. */

import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const cli = fileURLToPath(new URL('../../../cli/bin/handover.js', import.meta.url))

export const spareIsReady = (name: string, env: NodeJS.ProcessEnv): boolean =>
  /"ready":\s*true/.test(execFileSync(process.execPath, [cli, 'status', name, '--json'], { env, encoding: 'utf8' }))
