/**
 * What tests start, by its path, and the few internal modules that tests with processes use. The others are named in internals.ts, which
 * has all of these, too: it loads half of the project, and most files with processes need nothing of that.
 */

import { fileURLToPath } from 'node:url'

const built = (file: string): string => fileURLToPath(new URL(`../../packages/${file}`, import.meta.url))

/** What tests start, by its path. */
export const commandFile = built('cli/dist/bundle/main.js')
export const preloadFile = built('cli/dist/bundle/preload.js')
export const coreFile = built('core/dist/bundle/index.mjs')
export const internalFile = built('core/dist/bundle/internal.js')
export const demoFile = built('load/dist/demo/demo.js')
export const benchFile = built('load/dist/bench/main.js')

export { NoAnswer, statusOf } from '../../packages/cli/dist/control/ask.js'
export { seededRandom, type Random } from '../../packages/load/dist/client/random.js'
export { SessionLoad } from '../../packages/load/dist/client/session-load.js'
