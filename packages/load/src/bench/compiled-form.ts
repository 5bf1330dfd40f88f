/** V8's compiled form of the core, which a server writes some seconds after it serves: at its first start, and once more after a reload. */

import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const prefix = '.compiled-'

/** Until a server with its control socket in this folder has written it. */
export async function untilCompiled(folder: string, by: 'start' | 'successor' = 'start'): Promise<void> {
  // Until it is whole, its name ends with the number of the process that writes it.
  const isKept = (name: string): boolean =>
    name.startsWith(prefix) && !/\.\d+$/.test(name) && (by === 'start' || name.endsWith('-successor'))
  while (!readdirSync(folder).some(isKept)) await sleep(100)
}

/** As it is from the second reload on. */
export async function untilReloadedOnce(folder: string, reload: () => unknown): Promise<void> {
  await untilCompiled(folder)
  await reload()
  await untilCompiled(folder, 'successor')
}
