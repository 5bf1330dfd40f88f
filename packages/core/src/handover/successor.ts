/**
 * The successor's side of a handover, top to bottom as in the sequence diagram.
 *
 * Two parts: `takeOffer` is synchronous, because a listen() must know what it inherits before it returns; `succeed` runs beside the boot of
 * the application. Nothing is accepted before the line that says so.
 */

import { HandoverError, withoutStop, type ErrorCode } from '../errors.js'
import type { ListenerRegistry } from '../listeners/listener-registry.js'
import { inspectorUrl } from '../platform/inspector-port.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import type { Channel } from '../protocol/channel.js'
import { deadlineIn, DeadlinePassed } from '../protocol/deadline.js'
import { closeAll, type Received } from '../protocol/descriptors.js'
import {
  protocol, speaks, type Message, type MessageOf, type MovedConnection, type Peer, type Takes
} from '../protocol/handover-messages.js'
import type { Report } from '../protocol/report.js'

/** What was taken over: from whom, and the channel on which the rest is said. */
export interface TakenOffer {
  readonly predecessor: Peer
  readonly channel: Channel
  readonly offer: MessageOf<'offer'>
}

/**
 * Says hello as process `pid`, waits for the offer, checks every descriptor. Blocks this thread for at most `waitMs`.
 * Undefined where the predecessor died before it offered anything. Throws a HandoverError where it refused or cannot be trusted.
 */
export function takeOffer(contact: BlockingChannel, registry: ListenerRegistry, waitMs: number, pid = process.pid): TakenOffer | undefined {
  let unused: readonly number[] = []
  try {
    contact.say({ type: 'hello', protocol, pid, v8: process.versions.v8 })
    const received = contact.hear(deadlineIn(waitMs))
    if (received === undefined) {
      contact.close()
      return undefined
    }
    unused = received.fds
    const offer = offerIn(received)
    unused = []
    registry.take(offer.listeners, received.fds)
    return { predecessor: { pid: offer.pid, generation: offer.generation }, channel: contact.open(), offer }
  } catch (error) {
    const failure = error instanceof DeadlinePassed
      ? failed('HANDOVER_PREDECESSOR_SILENT', `the predecessor made no offer within ${waitMs} ms`, 'It still holds its listeners', 'See whether its event loop is blocked')
      : error
    closeAll(unused)
    contact.say({ type: 'failed', reason: (failure as Error).message })
    contact.close()
    throw failure
  }
}

/** The offer, where the predecessor's answer is one, and complete. Throws a HandoverError. */
function offerIn({ message: answer, missing }: Received<Message>): MessageOf<'offer'> {
  if (answer.type === 'refused') throw failed('HANDOVER_REFUSED', `${answer.reason} (${answer.code})`, 'This process took nothing over')
  if (answer.type === 'withdraw') throw withdrawal(answer.reason)
  if (answer.type !== 'offer') {
    throw failed('HANDOVER_PROTOCOL', `expected "offer", found "${answer.type}"`, 'The predecessor goes on serving')
  }
  if (!speaks(answer.protocol)) {
    const what = `this process speaks protocol ${protocol}, process ${answer.pid} speaks ${answer.protocol}`
    throw failed('HANDOVER_PROTOCOL_VERSION', what, `Process ${answer.pid} goes on serving`, 'Stop it and start anew, or go through a version in between')
  }
  if (missing?.truncated) {
    const what = `only ${missing.arrived} of ${missing.counted} descriptors arrived`
    throw failed('HANDOVER_FD_TRUNCATED', what, 'The predecessor goes on', 'Raise the limit of open files (ulimit -n)')
  }
  if (missing) throw failed('HANDOVER_PROTOCOL', `expected ${missing.counted} descriptors, found ${missing.arrived}`, 'The predecessor goes on serving')
  return answer
}

const failed = (code: ErrorCode, what: string, serving: string, todo = ''): HandoverError =>
  new HandoverError(code, { what, serving, ...(todo !== '' && { todo }) }, { role: 'successor', state: 'taking' })

const withdrawal = (reason: string): HandoverError => new HandoverError('HANDOVER_WITHDRAWN', {
  what: `the predecessor took its offer back: ${withoutStop(reason)}`, serving: 'It goes on serving; this process ends'
}, { role: 'successor' })

/** What `succeed` asks of the process that it runs in. */
export interface SuccessorSide {
  /** It is stopped: it says and does nothing more. */
  hasLeft(): boolean
  /** The application has booted: resolves with the word for the predecessor. */
  readonly prepared: Promise<MessageOf<'ready'>>
  /** Begin to accept. Answers what it can take of the predecessor's connections. */
  serve(): Takes | undefined
  /** Resolves when they are acknowledged. `fds`: where fewer arrived, of the first ones. */
  take(connections: readonly MovedConnection[], fds: readonly number[]): Promise<void>
  /** Resolves when what came before the end is done. */
  allTaken(): Promise<void>
  /** `fd`, here and below: undefined where it did not arrive. */
  section(message: MessageOf<'section'>, fd: number | undefined): void
  unsaved(message: MessageOf<'unsaved'>): void
  peer(message: MessageOf<'peer'>, fd: number | undefined): void
  /** The predecessor took the offer back: this process must end. */
  withdrawn(error: HandoverError): void
  /** The predecessor has ended its drain, or (not `orderly`) died: then there is no report, and this process may not serve yet. */
  predecessorEnded(report: Report | undefined, orderly: boolean): void
}

/** What the predecessor says of the handover itself; undefined where it is gone. */
type Word = MessageOf<'withdraw' | 'commit' | 'end'> | undefined

/** Resolves when the predecessor is gone. */
export async function succeed(channel: Channel, side: SuccessorSide): Promise<void> {
  let accepts = false
  const hearNext = async (): Promise<Word> => await hear(channel, side, () => accepts)
  /** How this process goes on after this word of the predecessor, or because it is ready itself. */
  const meet = async (word: Word | MessageOf<'ready'>): Promise<'together' | 'alone' | 'withdrawn'> => {
    if (side.hasLeft()) return 'withdrawn'
    if (word?.type === 'withdraw') {
      channel.close()
      side.withdrawn(withdrawal(word.reason))
      return 'withdrawn'
    }
    if (word?.type === 'commit' || word?.type === 'ready') return 'together'
    // Whatever it sent before it ended now belongs to this process alone.
    await side.allTaken()
    channel.close()
    side.predecessorEnded(word?.report, word !== undefined)
    return 'alone'
  }

  const first = hearNext()
  // The boot of the application, during which the predecessor may take its offer back or die.
  let is = await meet(await Promise.race([side.prepared, first]))
  if (is === 'withdrawn') return
  const ready = await side.prepared
  if (is === 'together') {
    channel.send(ready)
    is = await meet(await first)
    if (is === 'withdrawn') return
  }

  // ---- from here on this process accepts ----
  const takes = side.serve()
  accepts = true
  if (is === 'alone') return
  channel.send({ type: 'serving', pongs: true, ...(takes && { takes }) })

  channel.unref()
  const last = await hearNext()
  // A second commit is garbage, and counts as the predecessor's end.
  await meet(last?.type === 'commit' ? undefined : last)
}

/**
 * The predecessor's next word of the handover. What it says of state and of connections is passed on, each when the one before it is done.
 * Garbage counts as its end: it cannot be trusted with anything more.
 */
async function hear(channel: Channel, side: SuccessorSide, accepts: () => boolean): Promise<Word> {
  for (;;) {
    const received = await channel.receive().catch(() => undefined)
    if (received === undefined) return undefined
    const { message, fds } = received
    if (message.type === 'withdraw' || message.type === 'commit' || message.type === 'end') return message
    if (message.type === 'move' && accepts()) await side.take(message.connections, fds)
    else if (message.type === 'section') side.section(message, fds[0])
    else if (message.type === 'unsaved') side.unsaved(message)
    else if (message.type === 'peer') side.peer(message, fds[0])
    else if (message.type === 'ping') channel.send({ type: 'pong', ...(inspectorUrl() !== undefined && { debugged: true }) })
    else closeAll(fds)
  }
}
