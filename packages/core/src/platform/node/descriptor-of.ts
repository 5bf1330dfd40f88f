/**
 * The descriptor of a server, a socket or a UDP socket; undefined where it has none (closed, or in a cluster worker). `_handle.fd` has no
 * public counterpart; the handle of dgram is behind a symbol (`_handle` warns in 20 to 24 and is gone in 26).
 */

import type dgram from 'node:dgram'
import net from 'node:net'
import { datagramHandle } from './datagram-handle.js'
import { inside } from './inside.js'

export function fdOf(owner: net.Server | net.Socket | dgram.Socket): number | undefined {
  const fd = owner instanceof net.Server || owner instanceof net.Socket ? inside(owner)._handle?.fd : datagramHandle(owner)?.fd
  return typeof fd === 'number' && fd >= 0 ? fd : undefined
}
