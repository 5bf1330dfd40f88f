/**
 * Loaded by `node --require` before the program of a successor whose predecessor serves Unix sockets: the program may remove their paths,
 * or take functions out of fs, before it loads this package.
 */

import { hideWords, protect, standGuard, takeMarkedPaths } from './path-guard.js'

hideWords(['--require', __filename])
const paths = takeMarkedPaths(process.env)
if (paths.size > 0) {
  protect((file) => paths.has(file), () => undefined)
  standGuard()
}
