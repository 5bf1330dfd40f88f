/**
 * Which process a new one takes over from: the one that started it, else the one that serves under the same name, else what systemd holds
 * of a crashed one. It blocks the thread until an offer was made: the first listen() must know what it inherits.
 */

import { HandoverError, withoutStop } from '../errors.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import { offerStored } from '../sharing/sections/systemd-offer.js'
import { storedCheckpoints } from '../sharing/sections/systemd-store.js'
import type { GenerationContext } from './generation-context.js'

/** A process that hangs up before its offer has died, and the next look finds nothing; or it has no descriptor left for this one. */
const mostTries = 10
const betweenTriesMs = 50

/** Takes the offer of the process that serves, if there is one. Answers why this process must not listen, where that fails. */
export function findPredecessor(context: GenerationContext): HandoverError | undefined {
  const { host: { inherited }, controlSockets, startup, keeper, log } = context
  try {
    let contact = inherited.contact ?? controlSockets.find() ?? storedBySystemd(context)
    for (let tries = 1; contact && !startup.take(contact); tries++) {
      if (keeper && inherited.contact) {
        throw new HandoverError('HANDOVER_PREDECESSOR_SILENT', {
          what: 'the predecessor ended before it made its offer',
          serving: 'This process listens to nothing: the keeper has the listeners and the state',
          todo: 'The keeper starts another process with them'
        })
      }
      if (tries === mostTries) {
        throw new HandoverError('HANDOVER_PREDECESSOR_SILENT', {
          what: `the process that holds the control socket hung up ${tries} times`,
          serving: 'It may serve; this process listens to nothing',
          todo: 'See which process that is, and whether it is out of descriptors'
        })
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, betweenTriesMs)
      contact = controlSockets.find()
    }
    return undefined
  } catch (error) {
    const parts = { what: withoutStop((error as Error).message), serving: 'This process listens to nothing' }
    const refusal = error instanceof HandoverError ? error : new HandoverError('HANDOVER_CONTROL_SOCKET', parts, { cause: error })
    log('error', refusal.toString())
    return refusal
  }
}

/** Checkpoints of a process that crashed. A keeper has its own. */
function storedBySystemd({ keeper, host, log }: GenerationContext): BlockingChannel | undefined {
  const stored = keeper ? [] : storedCheckpoints(host.env)
  return stored.length > 0 ? offerStored(stored, (line) => { log('warn', line) }) : undefined
}
