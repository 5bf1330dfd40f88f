/**
 * The predecessor's side of a handover, top to bottom as in the sequence diagram.
 *
 * Until `serving` is heard it goes on accepting and every failure leads to one place that takes everything back. After that line it
 * accepts nothing; while the undo window is open it can accept again.
 */

import { HandoverError, repairTodo, withoutStop, type ErrorCode } from '../errors.js'
import { systemClock, type Clock } from '../platform/clock.js'
import type { ProcessEnd, SpawnedChild } from '../platform/spawn.js'
import type { Channel } from '../protocol/channel.js'
import { deadlineIn, DeadlinePassed, left, withDeadline, type Deadline } from '../protocol/deadline.js'
import { closeAll } from '../protocol/descriptors.js'
import { protocol, speaks, type Message, type MessageOf, type OfferedListener, type Peer } from '../protocol/handover-messages.js'
import type { Lifecycle } from '../protocol/lifecycle.js'
import { describeProcess, listed, processFirst } from '../protocol/report.js'
import { sendSections, type SectionsToSend } from '../sharing/sections/sections-to-send.js'
import type { LaunchedSuccessor } from './launch.js'

/** How long a successor may take from commit to serving: it has nothing to do but to accept. */
const commitMs = 10_000
/** How long a successor may take to end that has closed its channel, or was killed. */
const exitMs = 2_000

/** What a handover asks of the process that it runs in. */
export interface PredecessorSide extends Pick<MessageOf<'offer'>, 'mayDrop' | 'alone'> {
  readonly lifecycle: Lifecycle
  /** The system's where it is absent. */
  readonly clock?: Clock
  readonly self: Peer
  readonly readyTimeoutMs: number
  /** Gives the handover up while it still can be. Where its reason is a HandoverError, the reload fails with that. */
  readonly stopped?: AbortSignal
  offer(): { listeners: OfferedListener[]; fds: number[]; lacks?: readonly string[] }
  /** The shared state, which follows the offer. */
  readonly sections: SectionsToSend
  /** When the first generation began, in milliseconds since the epoch. */
  readonly since?: number | undefined
  /** A successor that listens on nothing of what is offered may serve as well. */
  readonly mayDropAll?: boolean
  /** Who serves what, for the second part of an error message. */
  serves(): string
  /** Closes every listener's handle at once, with a silent copy of each but the dropped ones. Answers which others are dropped. */
  stopAccepting(dropped: readonly string[]): readonly string[]
}

/** The handover up to the point of no return. */
export interface SwitchResult {
  readonly successor: Peer
  readonly ready: MessageOf<'ready'>
  readonly serving: MessageOf<'serving'>
  /** It was offered the control socket, and goes by another name or by none. */
  readonly dropsName: boolean
  readonly durations: { readonly launch: number; readonly prepare: number; readonly commit: number }
}

/**
 * Hands over to a successor that was started or that called. `begun`: `clock.now()` at the trigger. Resolves when the successor serves and
 * this process has stopped accepting. Throws a HandoverError where it failed: then this process serves as before, the successor is gone (or
 * told to go), and nothing is held.
 */
export async function handOver(side: PredecessorSide, launched: LaunchedSuccessor, begun: number): Promise<SwitchResult> {
  const { lifecycle, self, clock = systemClock } = side
  const { channel } = launched
  const deadline = deadlineIn(side.readyTimeoutMs, clock)
  const sendingSections = new AbortController()
  const successor: Peer = { pid: launched.pid, generation: self.generation + 1 }
  try {
    const hello = await expect(channel, 'hello', deadline, side.stopped)
    const greeted = clock.now()
    if (!speaks(hello.protocol)) {
      const what = `this process speaks protocol ${protocol}, process ${hello.pid} speaks ${hello.protocol}`
      throw failure('HANDOVER_PROTOCOL_VERSION', what, 'Stop and start once, or go through a version in between')
    }
    const known: Peer = { ...successor, pid: successor.pid || hello.pid }

    lifecycle.move('launching', { is: 'offering', successor: known })
    const { listeners, fds, lacks = [] } = side.offer()
    const { names } = side.sections
    const readyMs = Math.round(left(deadline))
    channel.send({
      type: 'offer', protocol, pid: self.pid, generation: self.generation, listeners,
      ...(names.length > 0 && { sections: names }), ...(lacks[0] && { lacks }), ...(side.since !== undefined && { since: side.since }),
      ...(Number.isFinite(readyMs) && { readyMs }), ...(side.mayDrop && { mayDrop: true }), ...(side.alone && { alone: true })
    }, fds)
    void sendSections(side.sections, channel, sendingSections.signal, hello.v8)

    const ready = await expect(channel, 'ready', deadline, side.stopped, side.sections)
    const prepared = clock.now()
    if (!side.mayDrop && !side.mayDropAll) refuseToDropAll(listeners, ready)
    // A program that restores nothing is ready before all sections are sent. It needs no more of them: connections come next.
    sendingSections.abort(new Error('the successor is ready without it'))

    lifecycle.move('offering', { is: 'committing', successor: known })
    channel.send({ type: 'commit' })
    const serving = await expect(channel, 'serving', deadlineIn(commitMs, clock))

    // ---- the point of no return ----
    lifecycle.move('committing', { is: 'draining', successor: known })
    const late = side.stopAccepting(ready.dropped)
    launched.child?.unref()
    const durations = { launch: greeted - begun, prepare: prepared - greeted, commit: clock.now() - prepared }
    const dropsName = listeners.some(({ kind, name }) => kind === 'control' && ready.dropped.includes(name))
    return { successor: known, ready: { ...ready, dropped: [...ready.dropped, ...late] }, serving, dropsName, durations }
  } catch (cause) {
    sendingSections.abort(new Error('the reload was given up'))
    const error = await takeBack(side, clock, launched, successor, cause)
    const { is } = lifecycle.state
    if (is === 'launching' || is === 'offering' || is === 'committing') lifecycle.move(is, { is: 'serving' })
    throw error
  }
}

/** The other side is gone. */
class Gone extends Error {}

/** What failed, before `takeBack` adds who serves and what the successor wrote. `system`: the code of the successor's own error. */
const failure = (code: ErrorCode, what: string, todo: string, system?: string): HandoverError =>
  new HandoverError(code, { what, todo }, system === undefined ? {} : { cause: Object.assign(new Error(what), { code: system }) })

/** The next message of the successor, which must be of this type. Throws DeadlinePassed, Gone, or a HandoverError. */
async function expect<T extends Message['type']>(
  channel: Channel, type: T, deadline: Deadline, stopped?: AbortSignal, sections?: SectionsToSend
): Promise<MessageOf<T>> {
  const next = async (): Promise<Message | undefined> => {
    const received = await channel.receive(deadline, stopped)
    // No message that is awaited here has descriptors.
    closeAll(received?.fds ?? [])
    return received?.message
  }
  let message = await next()
  for (; message?.type === 'restoring'; message = await next()) sections?.restoring?.(message.name, message.bytes)
  if (stopped?.aborted) {
    throw stopped.reason instanceof HandoverError
      ? stopped.reason
      : failure('HANDOVER_STOPPED', 'a stop was asked while the reload ran', 'Nothing is left to do')
  }
  if (message === undefined) throw new Gone()
  if (message.type === 'failed') {
    throw message.code === 'HANDOVER_STATE' ? failure(message.code, message.reason, 'Repair save or restore, or mark the section optional in the new version, and reload again; or reload with --without-state')
      : failure('HANDOVER_SUCCESSOR_FAILED', message.reason, 'Repair it and reload again', message.code)
  }
  if (message.type !== type) throw failure('HANDOVER_PROTOCOL', `expected "${type}", found "${message.type}"`, channelTodo)
  return message as MessageOf<T>
}

const channelTodo = 'See whether another program holds the channel'

/** Such a successor is most likely started in a wrong way. It may drop some listeners: the report says so. */
function refuseToDropAll(listeners: readonly OfferedListener[], { kept, added }: MessageOf<'ready'>): void {
  const served = listeners.filter(({ kind }) => kind !== 'control').map(({ name }) => name)
  // A path that was removed is bound anew, and is then among `added` under the same name.
  if (served.length === 0 || served.some((name) => kept.includes(name) || added.includes(name))) return
  const what = `it listens on ${added.length > 0 ? listed(added) : 'nothing'}, and on nothing of what is served now (${listed(served)})`
  throw failure('HANDOVER_SUCCESSOR_FAILED', what, 'See what it listens on, and reload again. If that is meant, reload with --allow-drop, or stop and start')
}

// ---- when it fails ----

/** The successor said so itself, and ends by itself. */
const cannotServe = (cause: unknown): boolean =>
  cause instanceof HandoverError && (cause.code === 'HANDOVER_SUCCESSOR_FAILED' || cause.code === 'HANDOVER_STATE')

/** Ends the successor, and says what happened, who serves, and what to do. */
async function takeBack(
  side: PredecessorSide, clock: Clock, { channel, child }: LaunchedSuccessor, successor: Peer, cause: unknown
): Promise<HandoverError> {
  const { self, lifecycle: { state: { is: state } } } = side
  const reason = withoutStop(cause instanceof HandoverError ? cause.what : cause instanceof Error ? cause.message : String(cause))
  const wasReady = state === 'committing'
  channel.send({
    type: 'withdraw',
    reason: cause instanceof DeadlinePassed ? `it did not ${wasReady ? 'serve' : 'become ready'} in time` : cause instanceof Gone ? 'the channel was closed' : reason
  })
  const ended = child && await end(child, cause instanceof Gone || cannotServe(cause), clock)
  channel.close()
  const stderr = child?.stderr() ?? ''

  const explain = (): readonly [code: ErrorCode, what: string, todo: string] => {
    const who = describeProcess(successor)
    if (cause instanceof DeadlinePassed) {
      const late = wasReady ? `serve within ${commitMs} ms` : `become ready within ${side.readyTimeoutMs} ms`
      const what = `${who} did not ${late} and was ${child && ended?.signal !== null ? 'killed' : 'told to end'}`
      return ['HANDOVER_SUCCESSOR_TIMEOUT', what, wasReady
        ? 'See what blocks its event loop, then reload again'
        : 'Raise readyTimeout, call ready() where readyWhen is manual, or see what it wrote to stderr']
    }
    if (cause instanceof Gone) {
      const signal = ended?.signal ?? undefined
      const how = !ended ? '' : signal === undefined ? ` with status ${ended.code}` : ` by ${signal}`
      const todo = repairTodo(stderr, ended?.isKilled ? undefined : signal)
      return ['HANDOVER_SUCCESSOR_EXIT', `${who} ended${how} before it ${wasReady ? 'served' : 'was ready'}`, todo]
    }
    if (!(cause instanceof HandoverError)) {
      return ['HANDOVER_PROTOCOL', `the handover to ${who} failed: ${reason}`, 'Reload again; if it stays so, report it']
    }
    // The channel, which throws without `todo`, knows neither who speaks nor what to do.
    const from = cannotServe(cause) ? `${who} cannot serve: ` : cause.todo === undefined ? `${who}: ` : ''
    return [cause.code, `${from}${reason}`, cause.todo ?? channelTodo]
  }
  const [code, what, todo] = explain()
  return new HandoverError(code, {
    what,
    serving: code === 'HANDOVER_STOPPED' ? `${processFirst(self)} answers what it has and ends` : side.serves(),
    todo,
    onLines: true,
    ...(stderr !== '' && { appendix: `Generation ${successor.generation} last wrote to stderr:\n${stderr.replace(/^/gm, '    ')}` })
  }, { role: 'predecessor', state, generation: self.generation, cause, stderr })
}

/**
 * Resolves with how it ended; undefined where that cannot be seen in time. `byItself`: it gets some time for that, else it is killed at
 * once. `isKilled`: this process had to do that.
 */
async function end(child: SpawnedChild, byItself: boolean, clock: Clock): Promise<ProcessEnd & { readonly isKilled: boolean } | undefined> {
  if (!byItself) child.kill()
  const inTime = await withDeadline(child.ended, deadlineIn(exitMs, clock))
  child.kill()
  const ended = inTime ?? await withDeadline(child.ended, deadlineIn(exitMs, clock))
  // What it wrote last is still on its way.
  await new Promise<void>((resolve) => { clock.setImmediate(resolve) })
  return ended && { ...ended, isKilled: !byItself || inTime === undefined }
}

/** What the successor may say after the switch. */
export interface SuccessorWords {
  settled(): void
  taken(count: number, back: readonly number[] | undefined): void
  /** `fd`: of a file with the text, where it has none; undefined also where that did not arrive. */
  peer(message: MessageOf<'peer'>, fd: number | undefined): void
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
