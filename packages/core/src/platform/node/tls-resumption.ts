/**
 * What a server of TLS must have in common with the process before it, so that a client that comes back resumes its session: the keys of
 * its tickets, and the name under which OpenSSL keeps sessions apart. Node makes that name of `process.argv`, which has the directory of a
 * release. Node has no function for the name; without that private part such a client makes a new handshake.
 */

import type tls from 'node:tls'

export interface Resumption {
  /** In base64. */
  readonly ticketKeys?: string
  readonly sessionContext?: string
}

interface ServerInside {
  /** The program set `options.ticketKeys` itself; it may share them with other machines. */
  readonly ticketKeys?: unknown
  /** `options.sessionIdContext`, or what Node made. */
  sessionIdContext?: unknown
  readonly _sharedCreds?: { readonly context?: { setSessionIdContext?(name: string): void } }
}

/** As Node makes it: Server.setSecureContext() of tls. */
const sessionContextOfProcess = (): string =>
  process.getBuiltinModule('node:crypto').createHash('sha1').update(process.argv.join(' ')).digest('hex').slice(0, 32)

export function resumptionOf(server: tls.Server): Resumption {
  const { sessionIdContext } = server as ServerInside
  return {
    ticketKeys: server.getTicketKeys().toString('base64'),
    ...(typeof sessionIdContext === 'string' && { sessionContext: sessionIdContext })
  }
}

/** What the program chose itself stands. */
export function resumeSessions(server: tls.Server, { ticketKeys, sessionContext }: Resumption): void {
  const inside = server as ServerInside
  if (ticketKeys !== undefined && inside.ticketKeys === undefined) server.setTicketKeys(Buffer.from(ticketKeys, 'base64'))
  const { context } = inside._sharedCreds ?? {}
  if (sessionContext === undefined || typeof context?.setSessionIdContext !== 'function') return
  if (inside.sessionIdContext === sessionContext || inside.sessionIdContext !== sessionContextOfProcess()) return
  context.setSessionIdContext(sessionContext)
  inside.sessionIdContext = sessionContext
}
