/**
 * A keeper hands its job to another keeper, which it starts with the same command line: a new version of this package, or a new Node. The
 * listeners, the control socket, checkpoints, and counts of ended processes go along. The new keeper finds the workers by their own
 * sockets. Until it says `ready`, the old one can go on.
 *
 *     K1                                  K2
 *     keep (and all descriptors)    →
 *                                   ←     prepared
 *     go (leaves its workers; counts) →
 *                                   ←     ready (has the workers)
 *     ends
 */

import {
  count, countedByShape, deadlineIn, endsContainer, endsService, HandoverError, initialEnvironment, list, listenerShape, notifySystemd,
  number, openChannel, optional, orNull, record, reloadOutcomeShape, reloadRecordShape, shape, start, string, takeInheritance, vocabulary,
  watchdogBeatMs, withoutStop,
  type Channel, type ControlSocket, type Deadline, type Inheritance, type Peer, type Received, type Shapes
} from '@handover/core/internal'
import { byWhat } from '../text.js'
import type { SavedCheckpoint } from './checkpoint-store.js'
import type { SavedCount } from './count-store.js'
import type { LastCounts, Memory } from './fleet.js'
import type { Keeper } from './keeper.js'
import type { SavedMember } from './listener-members.js'
import type { StartCommand } from './start-paths.js'

/** All that the next keeper must know. */
export interface KeeperMemory extends Memory {
  readonly members: readonly SavedMember[]
  /** Whether there is a control socket: then its descriptor comes first. */
  readonly control: string | null
  /** Their descriptors come after those of the members, in this order. */
  readonly checkpoints: readonly SavedCheckpoint[]
  readonly counts: readonly SavedCount[]
}

type FromOld = { readonly type: 'keep'; readonly kept: KeeperMemory } | ({ readonly type: 'go' } & LastCounts)
type FromNew = { readonly type: 'prepared' } | { readonly type: 'ready' }
const memory = shape({
  name: string, startedAt: number, crashes: count, count,
  lastReload: orNull(reloadOutcomeShape), since: optional(number), reloads: list(reloadRecordShape), control: orNull(string),
  members: list(shape({ slot: count, key: string, state: string, listener: listenerShape })),
  checkpoints: list(shape({ slot: count, pid: orNull(count), name: string, bytes: count, at: number, crashes: count })),
  counts: list(shape({ topic: string, slot: count, snapshot: countedByShape }))
})
const metricsShape = shape({
  reloads: count, requestsCut: count, failures: record(count), fates: record(count),
  durations: record(shape({ below: record(count), count, sum: number }))
})
const oldShapes: Shapes<FromOld> = { keep: { kept: memory }, go: { crashes: count, metrics: optional(metricsShape) } }
const newShapes: Shapes<FromNew> = { prepared: {}, ready: {} }
const fromOld = vocabulary<FromOld>('old keeper', oldShapes, {
  keep: ({ kept: { members, control, checkpoints, counts } }) =>
    (control === null ? 0 : 1) + members.length + checkpoints.length + counts.length
})
const fromNew = vocabulary<FromNew>('new keeper', newShapes, {})

const startMs = 30_000
const adoptMs = 10_000

/** Resolves when the next keeper has everything; then this process must end. Throws a HandoverError if that failed; then it goes on. */
export async function handKeeperOver(command: StartCommand, keeper: Keeper, control: ControlSocket | undefined): Promise<Peer> {
  refuseToEndAll()
  keeper.noteStart(command.notes)
  const started = await start(command, initialEnvironment()).catch((cause: unknown) => {
    throw new HandoverError('HANDOVER_SPAWN', {
      what: `a new keeper could not be started: ${withoutStop((cause as Error).message)}`,
      serving: goesOn(keeper),
      todo: 'Check that Node and the working directory are there, and the limits of the keeper (ulimit -n, ulimit -u, memory)',
      onLines: true
    }, { cause })
  })
  const channel = openChannel<FromNew, FromOld>(started.messages, started.descriptors, fromNew)
  let left = false
  try {
    const { members, fds } = keeper.members.all()
    const { checkpoints, fds: files } = keeper.checkpoints.all()
    const { counts, fds: counted } = keeper.counts.all()
    const kept = { ...keeper.memory, members, control: control?.file ?? null, checkpoints, counts }
    channel.send({ type: 'keep', kept }, [...(control ? [control.fd] : []), ...fds, ...files, ...counted])
    await expect(channel, 'prepared', deadlineIn(startMs))
    if (keeper.stopping) throw new Error('a stop was asked meanwhile')
    control?.pause()
    left = true
    channel.send({ type: 'go', ...keeper.leave() })
    await expect(channel, 'ready', deadlineIn(adoptMs))
    // From here the watchdog counts for the next keeper.
    notifySystemd({ MAINPID: started.pid, READY: 1, ...(watchdogBeatMs(process.env) !== undefined && { WATCHDOG: 1 }) })
    return { pid: started.pid, generation: 0 }
  } catch (error) {
    started.child.kill()
    const how = await started.child.ended
    const ended = how.signal === 'SIGKILL' ? '' : `, which ended ${byWhat(how)}`
    if (left) {
      await keeper.comeBack()
      control?.listen()
    }
    throw new HandoverError('HANDOVER_SUCCESSOR_FAILED', {
      what: `a new keeper (process ${started.pid}${ended}) could not take over: ${withoutStop((error as Error).message)}`,
      serving: goesOn(keeper),
      todo: 'See what the new one wrote',
      onLines: true
    }, { stderr: started.child.stderr() })
  } finally {
    channel.close()
  }
}

const goesOn = (keeper: Keeper): string => `Process ${process.pid} goes on as the keeper; ${keeper.serves()}`

/** Throws HANDOVER_UNAVAILABLE where the end of this process would be that of the workers, too. */
function refuseToEndAll(): void {
  const [container, service] = [endsContainer('the keeper'), endsService('the keeper')]
  const what = container ?? service
  if (what === undefined) return
  const instead = container === undefined ? 'Set Type=notify in the unit, or restart the service' : 'Start a new container'
  const todo = `${instead} for a new Node or a new version of handover; handover reload loads new code of the app`
  throw new HandoverError('HANDOVER_UNAVAILABLE', { what, serving: 'It goes on', todo })
}

async function expect<Hears extends { readonly type: string }>(
  channel: Channel<Hears, FromOld>, type: Hears['type'], deadline: Deadline
): Promise<void> {
  const received = await channel.receive(deadline).catch((error: unknown) => {
    throw error instanceof HandoverError ? error : new Error(`it said nothing within ${deadline.ms} ms`)
  })
  if (!received) throw new Error('it hung up')
  const found = received.message.type
  if (found !== type) throw new Error(`expected "${type}", found "${found}"`)
}

/** What the next keeper gets from the one that leaves. */
export interface KeeperSuccession {
  readonly kept: KeeperMemory
  /** The control socket, where there is one, and the members. */
  readonly control: number | undefined
  readonly fds: readonly number[]
  /** Gives the keeper what it is to hold for its workers. */
  remember(keeper: Keeper): void
  /** Says that this process can take over. Resolves when it must, with the last counts; throws if the old keeper goes on itself. */
  prepared(): Promise<LastCounts>
  /** Says that this process has everything: the old keeper ends. */
  ready(): void
}

/** Undefined if no keeper that wants to leave started this process. Reads and removes the mark. */
export async function follow(): Promise<KeeperSuccession | undefined> {
  const inheritance: Inheritance | undefined = takeInheritance(process.env)
  if (!inheritance) return undefined
  const channel = openChannel<FromOld, FromNew>(inheritance.messages, inheritance.descriptors, fromOld)
  const received = await channel.receive(deadlineIn(startMs))
  if (received?.message.type !== 'keep') throw new Error('the keeper that started this one said nothing')
  const { message: { kept }, fds, missing } = received as Received<Extract<FromOld, { type: 'keep' }>>
  if (missing) throw new Error(`${missing.arrived} of ${missing.counted} descriptors arrived: raise the limit of open files (ulimit -n)`)
  const { checkpoints, counts } = kept
  const listeners = kept.members.length + (kept.control === null ? 0 : 1)
  return {
    kept,
    control: kept.control === null ? undefined : fds[0],
    fds: fds.slice(kept.control === null ? 0 : 1, listeners),
    remember: (keeper) => {
      keeper.checkpoints.restore(checkpoints, fds.slice(listeners, listeners + checkpoints.length))
      keeper.counts.restore(counts, fds.slice(listeners + checkpoints.length))
    },
    prepared: async () => {
      channel.send({ type: 'prepared' })
      const go = await channel.receive(deadlineIn(startMs))
      if (go?.message.type !== 'go') throw new Error('the keeper that started this one goes on itself')
      return go.message
    },
    ready: () => {
      channel.send({ type: 'ready' })
      inheritance.stderr?.restore()
      // When the old keeper is gone, no process reads what its children still write there.
      void channel.closed(deadlineIn(adoptMs)).then(() => {
        inheritance.stderr?.passOn()
        channel.close()
      })
    }
  }
}
