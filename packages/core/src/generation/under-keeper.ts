/**
 * A generation under a keeper: what it does when the keeper asks for it, and what changes when the keeper goes or another one comes.
 *
 * The keeper starts successors and decides when the undo window is over. Without it the process serves on, and cannot be reloaded.
 */

import type { CallingKeeper } from '../control/control-connections.js'
import { HandoverError } from '../errors.js'
import { keepsServing } from '../handover/announcements.js'
import { channelTo } from '../handover/launch.js'
import { serveProbe } from '../keeper-link/cover-listeners.js'
import { KeeperLink, type KeeperSeat } from '../keeper-link/keeper-link.js'
import { accepts } from '../protocol/lifecycle.js'
import type { Report } from '../protocol/report.js'
import type { GenerationContext } from './generation-context.js'
import type { ReloadOptions } from './handover-api.js'
import { tellKeeper } from './listening.js'
import { reload } from './reload.js'
import { stop } from './stop.js'

/** From now on this process is a worker of this keeper. */
export function keptBy(context: GenerationContext, seat: KeeperSeat): KeeperLink {
  const { registry, covered, lifecycle, state, host, log } = context
  registry.filesAreKept = true
  const link = new KeeperLink(seat, {
    reload: (pid, [messages, descriptors], more, options) => {
      reload(context, { trigger: 'keeper', caller: { channel: channelTo({ messages, descriptors }), pid }, more, options })
        .catch((error: unknown) => { context.keeper?.failed(error as HandoverError, pid) })
    },
    recall: (reason) => { context.shutdown?.recall(reason) },
    settle: () => {
      context.shutdown?.settle()
      host.inherited.stderr?.restore()
    },
    // A process that drains accepts nothing any more.
    cover: (listeners) => { covered.cover(listeners, accepts(lifecycle.state.is)) },
    probe: (listener, fd) => { serveProbe(registry, listener, fd) },
    stop: (last, signal) => {
      if (last) registry.filesAreKept = false
      if (!context.stopRequested) context.signals.keeperStops(signal)
      void stop(context)
    },
    status: () => context.statusReader.status(context),
    tell: (topic, answer) => { state.tell(topic, answer) },
    inherit: (topic, of, fd) => { state.inherit(topic, of, fd) },
    gone: (expected) => { keeperGone(context, seat, expected) },
    warn: (line) => { log('warn', line) }
  })
  context.lostKeeper = undefined
  context.keeper = link
  return link
}

function keeperGone(context: GenerationContext, seat: KeeperSeat, expected: boolean): void {
  const { registry, host, lifecycle, controlSockets, log } = context
  context.lostKeeper = seat
  context.keeper = undefined
  registry.filesAreKept = false
  host.inherited.stderr?.passOn()
  context.shutdown?.settle()
  // The next keeper would find a process that serves, and not know one that boots.
  context.running?.giveUp.abort(new HandoverError('HANDOVER_UNAVAILABLE', {
    what: 'the keeper, which started the successor, is gone', todo: 'Start it again, in the same way, then reload again'
  }))
  context.spares.close()
  if (expected) return
  const serves = lifecycle.state.is === 'serving' ? `${keepsServing(context)}. ` : ''
  const todo = controlSockets.hasOwn
    ? 'Start it again, in the same way: it finds its workers'
    : `The next one does not find this process, whose control socket could not be made: repair that, or end this process first (kill ${host.pid})`
  log('warn', `the keeper (process ${seat.keeper}) is gone. ${serves}${todo}.`)
}

/** A keeper takes this process for its worker: it was started after the former keeper was gone, or replaces it. */
export function keeperCalled(context: GenerationContext, { line, pid, slot }: CallingKeeper): void {
  const { keeper, lostKeeper, lifecycle, self, log } = context
  const { name } = keeper ?? lostKeeper ?? {}
  if (name === undefined) {
    log('warn', `process ${pid} asked to become the keeper of this process, which was not started by one. Ignored.`)
    line.close()
    return
  }
  keeper?.replace()
  keptBy(context, { line, slot, keeper: pid, name }).state(lifecycle.state.is, self.generation)
  tellKeeper(context)
}

/** Under a keeper it is the keeper that reloads. */
export async function reloadOrAsk(context: GenerationContext, trigger: 'signal' | 'call', options: ReloadOptions = {}): Promise<Report> {
  return context.keeper ? await askKeeper(context, context.keeper, options) : await reload(context, { trigger, options })
}

async function askKeeper(context: GenerationContext, keeper: KeeperLink, options: ReloadOptions): Promise<Report> {
  const { withoutState = false, allowDrop = false } = options
  const error = await keeper.wants({ withoutState, allowDrop })
  if (error) throw error
  const { lastReport, host } = context
  if (lastReport) return lastReport
  throw new HandoverError('HANDOVER_NOT_SERVING', { what: `process ${host.pid} has no part in the reload`, todo: 'Ask the process that serves' })
}
