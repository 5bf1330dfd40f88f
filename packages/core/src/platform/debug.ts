/**
 * `NODE_DEBUG=handover` writes to standard error: every move of a lifecycle, every message with the number of its descriptors, and why a
 * connection stays. It names types and numbers, never the contents of a message. Where it is off, a call costs one comparison.
 */

import { debuglog } from 'node:util'

const log = debuglog('handover')

/** `describe` is called only where the log is on. */
export function debug(describe: () => string): void {
  if (log.enabled) log('%s', describe())
}
