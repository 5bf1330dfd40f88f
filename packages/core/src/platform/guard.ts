/**
 * Loaded by `node --require` before the program of a successor whose predecessor serves Unix sockets: the program may remove their paths,
 * or take functions out of fs, before it loads this package.
 */

import { builtFile } from './native-binary.js'
import { hideWords, protect, standGuard, takeMarkedPaths } from './path-guard.js'

hideWords(['--require', builtFile('guard.js') ?? ''])
const paths = takeMarkedPaths(process.env)
if (paths.size > 0) {
  protect((file) => paths.has(file), () => undefined)
  standGuard()
}
