/**
 * What `NODE_DEBUG=handover` writes to standard error: every move of a lifecycle, every message with the number of its descriptors, and why
 * a connection stays.
 *
 * It names types and numbers, and never what a message carries. Where it is off, a call costs one comparison.
 */

import { debuglog } from 'node:util'

const log = debuglog('handover')

/** `describe` is called only where somebody reads it. */
export function debug(describe: () => string): void {
  if (log.enabled) log('%s', describe())
}
