/**
 * The successor's side of a handover, top to bottom as in the sequence diagram.
 *
 * Two parts: `takeOffer` is synchronous, because a listen() must know what it inherits before it returns; `succeed` runs beside the boot of
 * the application. Nothing is accepted before the line that says so.
 */

import { HandoverError, withoutStop } from '../errors.js'
import type { ListenerRegistry } from '../listeners/listener-registry.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import type { Channel } from '../protocol/channel.js'
import { deadlineIn, DeadlinePassed } from '../protocol/deadline.js'
import { closeAll } from '../protocol/descriptors.js'
import { protocol, speaks, type MessageOf, type MovedConnection, type Peer, type Takes } from '../protocol/handover-messages.js'
import type { Report } from '../protocol/report.js'

/** What was taken over: from whom, and the channel on which the rest is said. */
export interface TakenOffer {
  readonly predecessor: Peer
  readonly channel: Channel
  /** The names of the shared state that follows. */
  readonly sections: readonly string[]
  /** When the first generation began, in milliseconds since the epoch. */
  readonly since: number | undefined
  /** How long this process may take until it is ready, from now; undefined where it may take as long as it likes. */
  readonly readyMs: number | undefined
  /** What this version does not listen on is meant to be dropped. */
  readonly mayDrop: boolean
  /** Nobody serves until this process does. */
  readonly alone: boolean
}

/**
 * Says hello as process `pid`, waits for the offer, checks every descriptor. Blocks this thread for at most `waitMs`.
 * Undefined where the predecessor died before it offered anything. Throws a HandoverError where it refused or cannot be trusted.
 */
export function takeOffer(contact: BlockingChannel, inventory: ListenerRegistry, waitMs: number, pid = process.pid): TakenOffer | undefined {
  let unused: readonly number[] = []
  try {
    contact.say({ type: 'hello', protocol, pid })
    const received = contact.hear(deadlineIn(waitMs))
    if (received === undefined) {
      contact.close()
      return undefined
    }
    const { message: answer, fds, missing } = received
    unused = fds
    if (answer.type === 'refused') {
      throw new HandoverError('HANDOVER_REFUSED', `${answer.reason} (${answer.code}). This process took nothing over.`, { role: 'successor', state: 'taking' })
    }
    if (answer.type === 'withdraw') throw withdrawal(answer.reason)
    if (answer.type !== 'offer') {
      throw new HandoverError('HANDOVER_PROTOCOL', `expected "offer", found "${answer.type}". The predecessor goes on serving.`, { role: 'successor', state: 'taking' })
    }
    if (!speaks(answer.protocol)) {
      throw new HandoverError('HANDOVER_PROTOCOL_VERSION', `this process speaks protocol ${protocol}, process ${answer.pid} speaks ${answer.protocol}. Process ${answer.pid} goes on serving. Stop it and start anew, or go through a version in between.`, { role: 'successor', state: 'taking' })
    }
    if (missing?.truncated) {
      throw new HandoverError('HANDOVER_FD_TRUNCATED', {
        what: `only ${missing.arrived} of ${missing.counted} descriptors arrived`, serving: 'The predecessor goes on', todo: 'Raise the limit of open files (ulimit -n)'
      })
    }
    if (missing) throw new HandoverError('HANDOVER_PROTOCOL', `expected ${missing.counted} descriptors, found ${missing.arrived}.`)
    unused = []
    inventory.take(answer.listeners, fds)
    const { sections = [], since, readyMs, mayDrop = false, alone = false } = answer
    return { predecessor: { pid: answer.pid, generation: answer.generation }, channel: contact.open(), sections, since, readyMs, mayDrop, alone }
  } catch (error) {
    const failure = error instanceof DeadlinePassed
      ? new HandoverError('HANDOVER_PREDECESSOR_SILENT', `the predecessor made no offer within ${waitMs} ms. It still holds its listeners. See whether its event loop is blocked.`, { role: 'successor', state: 'taking' })
      : error
    closeAll(unused)
    contact.say({ type: 'failed', reason: (failure as Error).message })
    contact.close()
    throw failure
  }
}

const withdrawal = (reason: string): HandoverError =>
  new HandoverError('HANDOVER_WITHDRAWN', `the predecessor took its offer back: ${withoutStop(reason)}. It goes on serving; this process ends.`, { role: 'successor' })

/** What `succeed` asks of the process that it runs in. */
export interface SuccessorSide {
  /** The application has booted: resolves with the word for the predecessor. */
  readonly prepared: Promise<MessageOf<'ready'>>
  /** Begin to accept. Answers what it can take of the predecessor's connections. */
  serve(): Takes | undefined
  /**
   * Takes connections; where fewer descriptors arrived, these are of the first ones. `refusable`: those that cannot be taken may be given
   * back. Resolves when all are served.
   */
  take(connections: readonly MovedConnection[], fds: readonly number[], refusable: boolean): Promise<void>
  /** Resolves when what came before the end is done. */
  allTaken(): Promise<void>
  /** `fd`: undefined where it did not arrive. */
  section(message: MessageOf<'section'>, fd: number | undefined): void
  unsaved(message: MessageOf<'unsaved'>): void
  /** `fd`: of a file with the text, where it has none; undefined also where that did not arrive. */
  peer(message: MessageOf<'peer'>, fd: number | undefined): void
  /** The predecessor took the offer back: this process must end. */
  withdrawn(error: HandoverError): void
  /** The predecessor has ended its drain, or (not `orderly`) died: then there is no report, and this process may not serve yet. */
  predecessorEnded(report: Report | undefined, orderly: boolean): void
}

/** Resolves when the predecessor is gone. */
export async function succeed({ channel }: TakenOffer, side: SuccessorSide): Promise<void> {
  let accepts = false
  const hearNext = async (): ReturnType<typeof hear> => await hear(channel, side, () => accepts)
  let next = hearNext()
  const withdrawn = (reason: string): void => {
    channel.close()
    side.withdrawn(withdrawal(reason))
  }
  const ended = async (end?: MessageOf<'end'>): Promise<void> => {
    // What it sent before its end is nobody's but ours.
    await side.allTaken()
    channel.close()
    side.predecessorEnded(end?.report, end !== undefined)
  }

  // The boot of the application, during which the predecessor may change its mind or die.
  const first = await Promise.race([side.prepared, next])
  if (first?.type === 'withdraw') { withdrawn(first.reason); return }
  // Also where it was nobody but the keeper of what is left of a process that crashed.
  let alone = first === undefined || first.type === 'end'
  if (alone) await ended(first?.type === 'end' ? first : undefined)
  const ready = await side.prepared
  if (!alone) {
    channel.send(ready)
    const word = await next
    if (word?.type === 'withdraw') { withdrawn(word.reason); return }
    alone = word === undefined || word.type === 'end'
    if (alone) await ended(word?.type === 'end' ? word : undefined)
    else next = hearNext()
  }

  // ---- from here on this process accepts ----
  const takes = side.serve()
  accepts = true
  if (alone) return
  channel.send({ type: 'serving', pongs: true, ...(takes && { takes }) })

  channel.unref()
  const last = await next
  if (last?.type === 'withdraw') { withdrawn(last.reason); return }
  await ended(last?.type === 'end' ? last : undefined)
}

/**
 * The predecessor's next word of the handover; what it says of state and of connections is passed on, each when the one before it is done.
 * Garbage from it counts as its end: it cannot be trusted with anything more.
 */
async function hear(channel: Channel, side: SuccessorSide, accepts: () => boolean): Promise<MessageOf<'withdraw' | 'commit' | 'end'> | undefined> {
  for (;;) {
    const received = await channel.receive().catch(() => undefined)
    if (received === undefined) return undefined
    const { message, fds } = received
    switch (message.type) {
      case 'withdraw':
      case 'commit':
      case 'end':
        return message
      case 'move':
        if (accepts()) await side.take(message.connections, fds, message.refusable ?? false)
        else closeAll(fds)
        break
      case 'section':
        side.section(message, fds[0])
        break
      case 'unsaved':
        side.unsaved(message)
        break
      case 'peer':
        side.peer(message, fds[0])
        break
      case 'ping':
        channel.send({ type: 'pong', ...(isDebugged() && { debugged: true }) })
        break
      default:
        closeAll(fds)
    }
  }
}

/** Its inspector is open. */
const isDebugged = (): boolean => process.getBuiltinModule('node:inspector').url() !== undefined
