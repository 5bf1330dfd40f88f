/** How a generation stops: by a call, a signal or its keeper, or because a successor serves. A stop gives up a reload that runs. */

import { constants } from 'node:os'
import { textOf, type HandoverError } from '../errors.js'
import { announce } from '../handover/announcements.js'
import { Shutdown } from '../handover/shutdown.js'
import type { ServingSuccessor } from '../handover/undo.js'
import { notifySystemd } from '../platform/systemd-notify.js'
import { deadlineIn } from '../protocol/deadline.js'
import { isStarting } from '../protocol/lifecycle.js'
import { type Report } from '../protocol/report.js'
import type { GenerationContext } from './generation-context.js'
import { tellKeeper } from './listening.js'
import { farewell, runCloseHooks } from './program-cleanup.js'

/** Drains and ends the process. Resolves when it has ended, which only a test sees. */
export async function stop(context: GenerationContext): Promise<void> {
  const { lifecycle, registry, startup, host, settings } = context
  context.stopRequested = true
  context.shutdown?.settle()
  // A stop from within a 'state' event waits for what it interrupts.
  context.running?.giveUp.abort()
  if (context.reloading || context.isTelling) await context.running?.report?.catch(() => undefined)
  const { is } = lifecycle.state
  if (is === 'serving' || is === 'preparing' || is === 'ready') {
    if (is !== 'serving') leaveStart(context)
    context.covered.close(true)
    context.spares.close()
    context.paths.release()
    if (registry.filesAreKept) registry.passOn()
    context.state.servesNoMore()
    lifecycle.move(is, { is: 'draining' })
    startup.settled()
    if (!startup.predecessorServesOn) notifySystemd({ STOPPING: 1 })
    finish(context, undefined)
  } else if (isStarting(is)) {
    // Nothing of ours listens: the program has not begun, or all is left to Node.
    context.finished ??= runCloseHooks(context, deadlineIn(settings.drainTimeout, host.clock)).then(() => { host.exit() })
  }
  await context.finished
}

/** It ends before it is ready, and may have accepted where no other process serves. Nothing is awaited any more. */
function leaveStart({ startup, registry, keeper }: GenerationContext): void {
  startup.leave()
  registry.ownsFiles = !startup.predecessorServesOn
  registry.drop()
  keeper?.waitNoMore()
}

/**
 * The first signal drains; a second one, or one before this process has an offer, ends it at once. SIGHUP is a hangup here, which comes
 * several times: from the kernel, from the shell, and from the kernel once more when the shell ends.
 */
export function stopBySignal(context: GenerationContext, signal: NodeJS.Signals): void {
  const { stopRequested, lifecycle, log, self, registry, host } = context
  const { is } = lifecycle.state
  if (stopRequested && signal === 'SIGHUP') return
  if (!stopRequested && is !== 'idle' && is !== 'taking') {
    void stop(context)
    return
  }
  log('info', `generation ${self.generation} (process ${self.pid}) ends at once on ${signal}`)
  registry.unlinkFiles()
  host.exit(128 + constants.signals[signal])
}

/** Begins the shutdown. `served`: the successor; undefined after a stop. */
export function finish(context: GenerationContext, served: ServingSuccessor | undefined): void {
  const { state, servers: { openConnections: open }, self, log, host } = context
  const shutdown = new Shutdown(context, {
    older: context.startup,
    runCloseHooks: (deadline) => runCloseHooks(context, deadline),
    programEnds: () => [...context.closeHooks].some((hook) => context.appHooks.has(hook)) || context.signals.awaited !== undefined,
    farewell: (leftMs) => farewell(context, leftMs),
    draining: (drain) => { context.emit('draining', drain) },
    undone: (error, report) => { undone(context, error, report) }
  }, served)
  context.shutdown = shutdown
  if (served?.report.successor) state.connect('successor', served.launched.channel, served.report.successor)
  if (!served && open > 0) {
    log('info', `generation ${self.generation} (process ${self.pid}) drains ${open} connection${open === 1 ? '' : 's'}; signal again to end at once`)
  }
  context.finished = shutdown.run().catch((error: unknown) => {
    log('error', `the drain failed, and the process ends: ${textOf(error)}`)
    host.exit(1)
  })
}

/** This process serves again. */
function undone(context: GenerationContext, error: HandoverError, report: Report): void {
  const { state, keeper, log, requests } = context
  context.shutdown = undefined
  state.disconnect('successor', true)
  state.serves()
  tellKeeper(context)
  keeper?.failed(error, report.successor?.pid ?? 0)
  log('error', error.toString())
  context.emit('failed', error)
  announce(context, report)
  requests.undone(error)
  if (context.stopRequested) void stop(context)
}
