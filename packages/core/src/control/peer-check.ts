/**
 * Checks that the process at the other end of a control connection belongs to this user or to root (SO_PEERCRED).
 */

import { HandoverError } from '../errors.js'
import { addon, systemError } from '../platform/native.js'
import { userId } from './control-places.js'

/** `owner`: of the directory, whose processes root may ask; in its own directory it may ask those that gave root up. */
export function checkPeer(fd: number, who: string, owner?: number): void {
  const peer = addon().peerCredentials(fd)
  const mine = userId()
  if (typeof peer === 'number') throw systemError(peer, 'getsockopt')
  if (peer.uid !== mine && peer.uid !== 0 && !(mine === 0 && (peer.uid === owner || owner === 0))) {
    throw new HandoverError('HANDOVER_PEER_UID', {
      what: `the ${who} (process ${peer.pid}) has uid ${peer.uid}, expected ${mine} or 0`,
      serving: 'Nothing was taken over', todo: 'Run both as the same user'
    })
  }
}
