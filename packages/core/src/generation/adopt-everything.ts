/** For a program that knows nothing of Handover: the preload of `handover run` calls this before the program's first line. */

import './start-times.js'
import type { HandoverOptions } from '../options.js'
import { generationOfProcess } from './this-process.js'

/**
 * Adopts all that listens in this process from now on, although the program knows nothing of it: every server of http, https, http2 and net
 * when it listens, and every UDP socket that is bound to a port of its own. What the program gives to an adapter as well goes by the
 * adapter's options. `options` belong to the process. Throws HANDOVER_OPTION.
 */
export function adoptEverything(options: HandoverOptions = {}): void {
  const generation = generationOfProcess()
  generation.configure(options)
  generation.adoptEverything()
}
