/**
 * The predecessor's side of a handover, top to bottom as in the sequence diagram.
 *
 * Until `serving` is heard it goes on accepting and every failure leads to one place that takes everything back. After that line it
 * accepts nothing; while the undo window is open it can accept again.
 */

import { HandoverError, reasonOf, type ErrorCode } from '../errors.js'
import { systemClock, type Clock } from '../platform/clock.js'
import { closeLater } from '../platform/memory-file.js'
import type { ProcessEnd } from '../platform/spawn.js'
import type { Channel } from '../protocol/channel.js'
import { deadlineIn, DeadlinePassed, left, type Deadline } from '../protocol/deadline.js'
import { closeAll } from '../protocol/descriptors.js'
import { protocol, speaks, type Message, type MessageOf, type MessageType, type OfferedListener, type Peer, type Takes } from '../protocol/handover-messages.js'
import type { Lifecycle } from '../protocol/lifecycle.js'
import { describeProcess, listed } from '../protocol/report.js'
import type { SectionsToSend } from '../sharing/sections/sections-to-send.js'
import type { LaunchedSuccessor } from './launch.js'

/** How long a successor may take from commit to serving: it has nothing to do but to accept. */
const commitMs = 10_000
/** How long an end is awaited that was announced by the end of the channel. */
const exitMs = 2_000

/** What a handover asks of the process that it runs in. */
export interface PredecessorSide {
  readonly machine: Lifecycle
  /** The system's where it is absent. */
  readonly clock?: Clock
  readonly self: Peer
  readonly readyTimeoutMs: number
  /** Gives the handover up while it still can be; its reason may be `keeperIsGone`. */
  readonly stopped: AbortSignal
  offer(): { listeners: OfferedListener[]; fds: number[] }
  /** The shared state, which follows the offer. */
  readonly sections: SectionsToSend
  /** When the first generation began, in milliseconds since the epoch. */
  readonly since?: number | undefined
  /** Whoever asked for the reload means that listeners are dropped. */
  readonly mayDrop?: boolean
  /** Nobody is worse off where it listens on nothing of what is offered. */
  readonly mayDropAll?: boolean
  /** Nobody serves until the successor does. */
  readonly alone?: boolean
  /** Who serves what, for the second part of an error message. */
  serves(): string
  /**
   * Closes every listener's handle at once, keeping silent copies of all but the dropped ones; answers the names of others that are
   * dropped.
   */
  stopAccepting(dropped: readonly string[]): readonly string[]
}

/** The next keeper would find a process that serves, and not know one that boots. */
export const keeperIsGone = 'the keeper is gone'

/** The handover up to the point of no return. */
export interface SwitchResult {
  readonly successor: Peer
  readonly ready: MessageOf<'ready'>
  /** What it can take of the connections; absent where nothing. */
  readonly takes: Takes | undefined
  /** It answers `ping`. */
  readonly pongs: boolean
  readonly durations: { readonly launch: number; readonly prepare: number; readonly commit: number }
}

/**
 * Hands over to a successor that was started or that called. `begun`: `clock.now()` at the trigger. Resolves when the successor serves and
 * this process has stopped accepting. Throws a HandoverError where it failed: then this process serves as before, the successor is gone (or
 * told to go), and nothing is held.
 */
export async function handOver(side: PredecessorSide, launched: LaunchedSuccessor, begun: number): Promise<SwitchResult> {
  const { machine, self, clock = systemClock } = side
  const { channel } = launched
  const deadline = deadlineIn(side.readyTimeoutMs, clock)
  const enough = new AbortController()
  const successor: Peer = { pid: launched.pid, generation: self.generation + 1 }
  try {
    const hello = await expect(channel, 'hello', deadline, side.stopped)
    const greeted = clock.now()
    if (!speaks(hello.protocol)) {
      throw new Failure('HANDOVER_PROTOCOL_VERSION', `this process speaks protocol ${protocol}, process ${hello.pid} speaks ${hello.protocol}`, 'Stop and start once, or go through a version in between')
    }
    const known: Peer = { ...successor, pid: successor.pid || hello.pid }

    machine.move('launching', { is: 'offering', successor: known })
    const { listeners, fds } = side.offer()
    const { names } = side.sections
    const readyMs = Math.round(left(deadline))
    channel.send({
      type: 'offer', protocol, pid: self.pid, generation: self.generation, listeners,
      ...(names.length > 0 && { sections: names }), ...(side.since !== undefined && { since: side.since }),
      ...(Number.isFinite(readyMs) && { readyMs: Math.max(0, readyMs) }), ...(side.mayDrop && { mayDrop: true }), ...(side.alone && { alone: true })
    }, fds)
    void sendSections(side.sections, channel, enough.signal)

    const ready = await expect(channel, 'ready', deadline, side.stopped, side.sections)
    const prepared = clock.now()
    if (!side.mayDrop && !side.mayDropAll) refuseToDropAll(listeners, ready)
    // An older program knows nothing of sections, and must hear of none: what it hears next are connections.
    enough.abort(new Error('the successor is ready without it'))

    machine.move('offering', { is: 'committing', successor: known })
    channel.send({ type: 'commit' })
    const { takes, pongs = false } = await expect(channel, 'serving', deadlineIn(commitMs, clock))

    // ---- the point of no return ----
    machine.move('committing', { is: 'draining', successor: known })
    const late = side.stopAccepting(ready.dropped)
    launched.child?.unref()
    const now = clock.now()
    return { successor: known, ready: { ...ready, dropped: [...ready.dropped, ...late] }, takes, pongs, durations: { launch: greeted - begun, prepare: prepared - greeted, commit: now - prepared } }
  } catch (cause) {
    enough.abort(new Error('the reload was given up'))
    const error = await takeBack(side, clock, launched, successor, cause)
    const { is } = machine.state
    if (is === 'launching' || is === 'offering' || is === 'committing') machine.move(is, { is: 'serving' })
    throw error
  }
}

/** A reason inside a handover, before it is told with who serves now and what the successor wrote. */
class Failure extends Error {
  readonly code: ErrorCode
  readonly todo: string

  constructor(code: ErrorCode, what: string, todo: string) {
    super(what)
    this.code = code
    this.todo = todo
  }
}

/** The successor said so itself, and ends by itself. */
const cannotServe = ({ code }: Failure): boolean => code === 'HANDOVER_SUCCESSOR_FAILED' || code === 'HANDOVER_STATE'

/** The other side is gone. */
class Gone extends Error {}

async function expect<T extends MessageType>(channel: Channel, type: T, deadline: Deadline, stopped?: AbortSignal, sections?: SectionsToSend): Promise<MessageOf<T>> {
  const next = async (): Promise<Message | undefined> => {
    const received = await channel.receive(deadline, stopped)
    // No word that is awaited here has any.
    closeAll(received?.fds ?? [])
    return received?.message
  }
  let message = await next()
  for (; message?.type === 'restoring'; message = await next()) sections?.restoring?.(message.name, message.bytes)
  if (stopped?.aborted && stopped.reason === keeperIsGone) throw new Failure('HANDOVER_UNAVAILABLE', 'the keeper, which started the successor, is gone', 'Start it again, in the same way, then reload again')
  if (stopped?.aborted) throw new Failure('HANDOVER_STOPPED', 'a stop was asked while the reload ran', 'Nothing is left to do')
  if (message === undefined) throw new Gone()
  if (message.type === 'failed') throw new Failure(message.code === 'HANDOVER_STATE' ? 'HANDOVER_STATE' : 'HANDOVER_SUCCESSOR_FAILED', message.reason, message.code === 'HANDOVER_STATE' ? stateTodo : 'Repair it and reload again')
  if (message.type !== type) throw new Failure('HANDOVER_PROTOCOL', `expected "${type}", found "${message.type}"`, 'See whether another program holds the channel')
  return message as MessageOf<T>
}

/** It is most likely started in another way than it should be. Some of them may be dropped: the report says so. */
function refuseToDropAll(listeners: readonly OfferedListener[], { kept, added }: MessageOf<'ready'>): void {
  const served = listeners.filter(({ kind }) => kind !== 'control').map(({ name }) => name)
  // A path that was removed is bound anew: it goes on under its name.
  if (served.length === 0 || served.some((name) => kept.includes(name) || added.includes(name))) return
  throw new Failure('HANDOVER_SUCCESSOR_FAILED', `it listens on ${added.length > 0 ? listed(added) : 'nothing'}, and on nothing of what is served now (${listed(served)})`, dropTodo)
}

const dropTodo = 'See what it listens on, and reload again. If that is meant, reload with --allow-drop, or stop and start'

const stateTodo = 'Repair save or restore, or mark the section optional in the new version, and reload again; or reload with --without-state'

/** One after the other, so that there is one more copy at a time. A section that fails is told, and its reason. */
async function sendSections(sections: SectionsToSend, channel: Channel, signal: AbortSignal): Promise<void> {
  for (const name of sections.names) {
    try {
      const { fd, bytes, phase } = await sections.save(name, signal)
      try {
        await channel.sendWhenRoom({ type: 'section', name, phase, bytes }, [fd], signal)
      } finally {
        void closeLater(fd)
      }
    } catch (error) {
      if (signal.aborted) return
      channel.send({ type: 'unsaved', name, phase: 'offer', reason: reasonOf(error) })
    }
  }
}

/** Ends the successor, and says what happened, who serves, and what to do. */
async function takeBack(side: PredecessorSide, clock: Clock, { channel, child }: LaunchedSuccessor, successor: Peer, cause: unknown): Promise<HandoverError> {
  const who = describeProcess(successor)
  const timedOut = cause instanceof DeadlinePassed
  const reason = (cause instanceof Error ? cause.message : String(cause)).replace(/\.$/, '')
  const wasReady = side.machine.state.is === 'committing'

  channel.send({ type: 'withdraw', reason: timedOut ? `it did not ${wasReady ? 'serve' : 'become ready'} in time` : cause instanceof Gone ? 'the channel was closed' : reason })
  let ended: ProcessEnd | undefined
  if (child) {
    if (!(cause instanceof Gone) && !(cause instanceof Failure && cannotServe(cause))) child.kill()
    const soon = (): Promise<ProcessEnd | undefined> => Promise.race([child.ended, new Promise<undefined>((resolve) => clock.setTimeout(() => { resolve(undefined) }, exitMs))])
    ended = await soon()
    child.kill()
    ended ??= await soon()
    // What it wrote last is still on its way to us.
    await new Promise<void>((resolve) => { clock.setImmediate(resolve) })
  }
  channel.close()

  const how = ended === undefined ? '' : ended.signal === null ? ` with status ${ended.code}` : ` by ${ended.signal}`
  const [code, what, todo]: [ErrorCode, string, string] =
    timedOut ? ['HANDOVER_SUCCESSOR_TIMEOUT', `${who} did not ${wasReady ? `serve within ${commitMs}` : `become ready within ${side.readyTimeoutMs}`} ms and was ${child ? 'killed' : 'told to end'}`, wasReady ? 'See what blocks its event loop, then reload again' : 'Raise readyTimeout, call ready() where readyWhen is manual, or see what it wrote to stderr']
    : cause instanceof Gone ? ['HANDOVER_SUCCESSOR_EXIT', `${who} ended${how} before it ${wasReady ? 'served' : 'was ready'}`, 'Repair the build and reload again']
    : cause instanceof Failure ? [cause.code, cannotServe(cause) ? `${who} cannot serve: ${reason}` : reason, cause.todo]
    : cause instanceof HandoverError ? [cause.code, `${who}: ${reason}`, 'See whether another program holds the channel']
    : ['HANDOVER_PROTOCOL', `the handover to ${who} failed: ${reason}`, 'Reload again; if it stays so, report it']
  const stderr = child?.stderr() ?? ''
  return new HandoverError(
    code,
    `${what}.\n  ${code === 'HANDOVER_STOPPED' ? `Process ${side.self.pid} (generation ${side.self.generation}) answers what it has and ends.` : side.serves()}\n  ${todo}${stderr === '' ? '.' : `. Generation ${successor.generation} last wrote to stderr:\n${stderr.replace(/^/gm, '    ')}`}`,
    { role: 'predecessor', state: side.machine.state.is, generation: side.self.generation, cause, stderr }
  )
}

/** What the successor may say after the switch. */
export interface SuccessorWords {
  /** It needs no undo any more. */
  settled(): void
  /** It has the first `count` of the oldest connections on their way, but for those whose numbers are in `back`. */
  taken(count: number, back: readonly number[] | undefined): void
  /** `fd`: of a file with the text, where it has none; undefined also where that did not arrive. */
  peer(message: MessageOf<'peer'>, fd: number | undefined): void
  /** Its event loop turns. `debugged`: and may stand at a breakpoint next. */
  pong(debugged: boolean): void
}

/**
 * Listens to the successor after the switch. Resolves when it is gone, or cannot be trusted any more: then it may live, and hold what was
 * sent to it.
 */
export async function watchSuccessor(channel: Channel, hears: SuccessorWords): Promise<'gone' | 'garbage'> {
  for (;;) {
    const received = await channel.receive().catch(() => 'garbage' as const)
    if (received === undefined) return 'gone'
    if (received === 'garbage') return received
    const { message, fds } = received
    if (message.type === 'settled') hears.settled()
    else if (message.type === 'taken') hears.taken(message.count, message.back)
    else if (message.type === 'peer') hears.peer(message, fds[0])
    else if (message.type === 'pong') hears.pong(message.debugged ?? false)
    else closeAll(fds)
  }
}
