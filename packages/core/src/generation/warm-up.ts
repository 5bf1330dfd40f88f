/** The requests that the option `warmUp` asks for, before this process is ready. Whatever they meet, the reload goes on. */

import net from 'node:net'
import { sendWarmUpRequests } from '../connections/warm-up-requests.js'
import { textOf } from '../errors.js'
import { spoken } from '../keeper-link/cover-listeners.js'
import { processFirst } from '../protocol/report.js'
import type { GenerationContext } from './generation-context.js'

const mostMs = 5_000

/** Does nothing where nobody else serves, and ends when that process does. Never rejects. */
export async function warmUp(context: GenerationContext): Promise<void> {
  const { settings, startup, registry, servers, self, log } = context
  const { olderEnds } = startup
  if (settings.warmUp === '' || startup.nobodyServes || !olderEnds) return
  const paths = settings.warmUp.split(' ')
  const first = spoken(registry).find(({ protocol }) => protocol !== 'other')
  const server = first && registry.named(first.listener)?.owner
  const tracker = server instanceof net.Server ? servers.connectionsOf(server) : undefined
  if (!(server instanceof net.Server) || !tracker) {
    log('warn', `the requests of warmUp have nowhere to go: no listener speaks HTTP. ${processFirst(self)} goes on without.`)
    return
  }
  try {
    const longestMs = Math.min(mostMs, startup.readiness.leftMs)
    const { wanted, answered, ms, failed } = await sendWarmUpRequests(server, tracker, paths, longestMs, olderEnds)
    const what = `${answered} of ${wanted} warm-up requests for ${paths.join(', ')} in ${Math.round(ms)} ms`
    log(answered > 0 ? 'info' : 'warn', `${processFirst(self)} has answered ${what}, before it serves.`)
    for (const [what, count] of failed) log('warn', `a warm-up request ${what}, ${count} times.`)
  } catch (error) {
    log('warn', `the requests of warmUp cannot be sent: ${textOf(error)}. ${processFirst(self)} goes on without.`)
  }
}
