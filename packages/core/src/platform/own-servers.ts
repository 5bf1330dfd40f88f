/** Servers of Handover itself, such as control sockets: the hook on listen() leaves them alone. */

import type net from 'node:net'

export const withoutDoor = new WeakSet<net.Server>()

/** For servers of Handover's own: whatever else is adopted, these are none of the program's listeners. */
export function passListenHook<T extends net.Server>(server: T): T {
  withoutDoor.add(server)
  return server
}
