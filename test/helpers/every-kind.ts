/** Each kind of traffic that the load client has, a little of each. */

import type { LoadOptions } from '@handover/load'

export const everyKind: LoadOptions = {
  keepAlive: [{ clients: 2 }, { clients: 3, thinkMs: 20 }, { clients: 2, roundTripMs: 10 }],
  newConnections: { clients: 2 },
  slow: { clients: 2, ms: 30 },
  post: { clients: 2, pauseMs: 10 },
  stream: { clients: 2, chunks: 5, ms: 5 },
  pipelined: { clients: 2, depth: 3, thinkMs: 5 }
}
export const names = ['keep-alive', 'new', 'slow', 'post', 'stream', 'pipelined'] as const
