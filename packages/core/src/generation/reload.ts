/**
 * A reload in the process that serves: whether it may begin, the handover to a successor that is started or that called, and the report.
 *
 * A reload that fails changes nothing: this process serves on, and the error says so. One that succeeds ends in the shutdown of this
 * process.
 */

import { closeSync } from 'node:fs'
import { openCounts } from '../connections/drain-result.js'
import type { Caller } from '../control/control-connections.js'
import { HandoverError, withoutStop, type ErrorContext, type ErrorParts } from '../errors.js'
import { announce, keepsServing } from '../handover/announcements.js'
import type { LaunchedSuccessor } from '../handover/launch.js'
import { handOver, type PredecessorSide, type SwitchResult } from '../handover/predecessor.js'
import { endsContainer, endsService } from '../platform/processes.js'
import { notifySystemd, reloadNotice } from '../platform/systemd-notify.js'
import type { OfferedSocket } from '../protocol/handover-messages.js'
import { describeProcess, noState, processFirst, type Report } from '../protocol/report.js'
import type { GenerationContext } from './generation-context.js'
import type { ReloadOptions } from './handover-api.js'
import { finish } from './stop.js'

export interface ReloadOrder {
  readonly trigger: Report['trigger']
  /** A successor that this process has not started; without it this process starts one. */
  readonly caller?: Caller
  /** Listeners of the keeper that are offered as well. Their descriptors belong to the reload. */
  readonly more?: readonly OfferedSocket[]
  readonly options?: ReloadOptions
}

/** Resolves with the report when the successor serves. Throws a HandoverError where it does not: this process serves on. */
export async function reload(context: GenerationContext, order: ReloadOrder): Promise<Report> {
  const { caller, more = [] } = order
  const refusal = whyRefused(context, caller)
  if (refusal) {
    for (const { fd } of more) closeSync(fd)
    caller?.channel.send({ type: 'refused', code: refusal.code, reason: refusal.message })
    caller?.channel.close()
    const { reloading, stopRequested, lifecycle: { state } } = context
    if (!caller && !reloading && !stopRequested && state.is === 'serving') {
      // Where systemd has asked (Type=notify-reload), it waits for both.
      notifySystemd(reloadNotice())
      notifySystemd({ READY: 1 })
    }
    throw refusal
  }
  context.reloading = true
  const giveUp = new AbortController()
  context.running = { giveUp }
  context.running.report = context.requests.record(handOverTo(context, order, giveUp.signal))
  return await context.running.report
}

// ---- whether it may begin ----

function whyRefused(context: GenerationContext, caller: Caller | undefined): HandoverError | undefined {
  const { support, servers, lostKeeper, reloading, host, lifecycle: { state }, stopRequested } = context
  const error = (code: 'HANDOVER_UNAVAILABLE' | 'HANDOVER_RELOAD_RUNNING', what: string, todo: string): HandoverError =>
    new HandoverError(code, { what, serving: keepsServing(context), todo }, errorContext(context))

  // What was left to Node keeps its port: a successor could not bind it, and it would be closed when this process ends.
  const cannot = support.cannotReload() ?? servers.plain
  if (cannot !== undefined) return error('HANDOVER_UNAVAILABLE', cannot, 'Restart it to load new code')
  if (lostKeeper) {
    // A successor would belong to no keeper: the next keeper would not find it, and would find its port taken.
    const { keeper } = lostKeeper
    return host.isAlive(keeper)
      ? error('HANDOVER_UNAVAILABLE', `process ${keeper}, the keeper, has let go of this process, and only the keeper starts successors`,
        'See the log of the keeper: it looks for its workers every 10 seconds. Then reload')
      : error('HANDOVER_UNAVAILABLE', `the keeper (process ${keeper}) is gone, which starts successors`,
        'Start it again, in the same way: it finds its workers. Then reload')
  }
  if (reloading) return error('HANDOVER_RELOAD_RUNNING', 'a reload already runs', 'Wait for its report')
  if (state.is !== 'serving' || stopRequested) return notServing(context)
  // A caller without a pid is in another container, and lives on.
  const obstacle = caller?.pid === 0 ? undefined : endsContainer('this process', host.pid, caller !== undefined)
  if (obstacle !== undefined) {
    return error('HANDOVER_UNAVAILABLE', obstacle,
      'Let `handover run` be what the container starts, or start a second container with the same name and a shared HANDOVER_DIR')
  }
  // A process that called may belong to another service.
  const service = caller ? undefined : endsService('this process', host.pid, host.env)
  return service === undefined ? undefined : error('HANDOVER_UNAVAILABLE', service, 'Set Type=notify in the unit, or let `handover run` be its ExecStart')
}

function notServing(context: GenerationContext): HandoverError {
  const { lifecycle: { state }, self, stopRequested } = context
  const server = state.is === 'draining' ? state.successor : 'predecessor' in state ? state.predecessor : undefined
  const who = describeProcess(self)
  const parts: ErrorParts = server
    ? { what: `${who} is ${state.is}`, serving: `${processFirst(server)} serves`, todo: 'Ask that process' }
    : {
        what: `${who} is ${stopRequested ? 'stopping' : state.is} and does not serve`,
        todo: state.is === 'idle' ? 'Call listen() first' : 'Ask the process that does'
      }
  return new HandoverError('HANDOVER_NOT_SERVING', parts, errorContext(context))
}

const errorContext = ({ lifecycle, self }: GenerationContext): ErrorContext =>
  ({ role: 'predecessor', state: lifecycle.state.is, generation: self.generation })

// ---- the handover ----

async function handOverTo(context: GenerationContext, order: ReloadOrder, giveUp: AbortSignal): Promise<Report> {
  const { host, paths, controlSockets, lifecycle, state, startup, log } = context
  const begun = host.clock.now()
  paths.hold()
  notifySystemd(reloadNotice())
  controlSockets.heal()
  lifecycle.move('serving', { is: 'launching' })
  if (host.listenedBefore === true) {
    log('warn', 'a server of this process listened before Handover was loaded, and is not handed over: the next version finds its port in use. ' +
      'Let the program load Handover first; under handover run, give it what NODE_OPTIONS loads: handover run --require FILE.')
  }
  let launched: LaunchedSuccessor
  let switched: SwitchResult
  try {
    launched = context.launched = order.caller ?? await launch(context)
    switched = await switchTo(context, launched, order, giveUp, begun)
  } catch (error) {
    failed(context, order, error as HandoverError)
    throw error
  } finally {
    for (const { fd } of order.more ?? []) closeSync(fd)
    state.transferIsOver()
    context.launched = undefined
  }
  context.reloading = false
  // The predecessor of this process, if it has one, need not come back any more.
  startup.settled()
  // READY once more: with NotifyAccess=main systemd did not believe the successor yet.
  // A pid that only the successor itself has said may be one of another namespace.
  notifySystemd({ READY: 1, ...(launched.pid > 0 && { MAINPID: launched.pid }), ...context.watchdog.word })
  const report = reportOf(context, order, switched)
  announce(context, report)
  finish(context, { ...switched, launched, report })
  return report
}

async function launch(context: GenerationContext): Promise<LaunchedSuccessor> {
  const { host, paths, log, lifecycle, self } = context
  try {
    return await host.launch(paths.marked, (line) => { log('warn', line) })
  } catch (error) {
    lifecycle.move('launching', { is: 'serving' })
    const isKnown = error instanceof HandoverError
    const { message, cause } = error as Error
    throw new HandoverError(isKnown ? error.code : 'HANDOVER_SPAWN', {
      what: isKnown ? message : `a successor could not be started: ${withoutStop(message)}`,
      serving: keepsServing(context),
      todo: `Check the ${isKnown ? 'paths' : 'limits of this process and of its container (ulimit -n, ulimit -u, memory)'}, then reload again`,
      onLines: true
    }, { role: 'predecessor', state: 'launching', generation: self.generation, cause: isKnown ? cause : error })
  }
}

async function switchTo(
  context: GenerationContext, launched: LaunchedSuccessor, order: ReloadOrder, stopped: AbortSignal, begun: number
): Promise<SwitchResult> {
  const { lifecycle, host, self, settings, state, startup } = context
  const { withoutState = false, allowDrop = false } = order.options ?? {}
  return await handOver({
    lifecycle,
    clock: host.clock,
    self,
    readyTimeoutMs: settings.readyTimeout,
    stopped,
    offer: () => {
      // From here on this process or its successor serves: the predecessor of this process must not come back as well.
      startup.settled()
      return offer(context, order.more ?? [])
    },
    sections: state.toSend(withoutState),
    since: state.startedAt,
    mayDrop: allowDrop,
    serves: () => keepsServing(context),
    stopAccepting: (dropped) => stopAccepting(context, dropped)
  }, launched, begun)
}

function offer(
  { registry, controlSockets, failures }: GenerationContext, more: readonly OfferedSocket[]
): ReturnType<PredecessorSide['offer']> {
  // What the program has closed may be open in the next version: its port must be free.
  registry.drop()
  const { listeners, fds } = registry.offer()
  const control = controlSockets.offered
  const beside = [...(control ? [control] : []), ...more]
  return {
    listeners: [...listeners, ...beside.map(({ about }) => about)], fds: [...fds, ...beside.map(({ fd }) => fd)], lacks: [...failures]
  }
}

/** Right after the point of no return. Answers the names of listeners that the successor does not know. */
function stopAccepting(context: GenerationContext, dropped: readonly string[]): readonly string[] {
  const { state, covered, spares, paths, registry, controlSockets } = context
  state.servesNoMore()
  covered.close(false)
  spares.close()
  // From here on its files are the successor's.
  paths.release()
  const late = registry.silence(dropped)
  controlSockets.pause()
  return late
}

function failed(context: GenerationContext, { caller }: ReloadOrder, error: HandoverError): void {
  const { paths, startup, lostKeeper, host } = context
  context.reloading = false
  paths.mend()
  if (startup.predecessor === undefined) paths.release()
  // The successor's keeper is gone, and it may not end by itself.
  if (caller && lostKeeper) host.kill(caller.pid)
  notifySystemd({ READY: 1 })
  context.emit('failed', error)
}

function reportOf({ self, servers }: GenerationContext, { trigger }: ReloadOrder, { successor, ready, durations }: SwitchResult): Report {
  return {
    result: 'switched',
    trigger,
    predecessor: self,
    successor,
    listeners: { kept: ready.kept, added: ready.added, dropped: ready.dropped },
    state: ready.state ?? noState,
    connections: openCounts(servers.openConnections),
    requestsCut: [],
    durations: { ...durations, move: null, drain: null }
  }
}
