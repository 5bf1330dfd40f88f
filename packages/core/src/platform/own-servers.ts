/** Servers of Handover itself, such as control sockets: the hook on listen() leaves them alone. */

import type net from 'node:net'

export const unhooked = new WeakSet<net.Server>()

export function passListenHook<T extends net.Server>(server: T): T {
  unhooked.add(server)
  return server
}
