/**
 * Loaded by `node --require` before the program of a successor, where its predecessor serves Unix sockets: a program may remove their
 * paths before it loads this package, or keep functions of fs from before.
 */

import { hideWords, protect, standGuard, takeMarkedPaths } from './path-guard.js'

hideWords(['--require', __filename])
const paths = takeMarkedPaths(process.env)
if (paths.size > 0) {
  protect((file) => paths.has(file), () => undefined)
  standGuard()
}
