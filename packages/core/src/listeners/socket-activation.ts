/**
 * A listen() or bind() that names the descriptor of a socket of systemd, or asks for its address, gets a copy of that socket.
 *
 * systemd goes on listening and owns the files of Unix sockets: they are never unlinked. platform/activated-sockets.ts knows the sockets.
 */

import { lstatSync } from 'node:fs'
import { activation, type ActivatedSocket } from '../platform/activated-sockets.js'
import { native, type SocketDescription } from '../platform/native.js'
import { nameOf } from '../platform/socket-name.js'
import type { OfferedListener } from '../protocol/handover-messages.js'
import { find, type AskedAddress } from './listener-match.js'

/** A copy of a socket of systemd. The caller owns it. */
export interface OpenedSocket {
  readonly fd: number
  /** The path of a Unix socket. */
  readonly path: string | undefined
  readonly backlog: number
}

const byNumber = (fd: number | undefined): ActivatedSocket | undefined => activation().sockets.find(({ number }) => number === fd)

/** A call with a descriptor of systemd means the address of that socket; any other call means what it says. */
export function meaningOf(asked: AskedAddress): AskedAddress {
  const about = byNumber(asked.fd)?.about
  if (!about) return asked
  const { family, type, address, port, ipv6Only } = about
  if (family === 'unix') return { kind: 'unix', path: address }
  return type === 'dgram' ? { kind: 'udp', host: address, port } : { kind: 'tcp', host: address, port, ipv6Only }
}

/** The socket at this number or at this address. Undefined: systemd has none there. */
export function openActivated(asked: AskedAddress): OpenedSocket | undefined {
  const socket = byNumber(asked.fd) ?? byAddress(asked)
  if (!native || !socket?.about) return undefined
  const fd = native.duplicate(socket.fd)
  if (fd < 0) return undefined
  const { family, address, backlog } = socket.about
  return { fd, path: family === 'unix' ? address : undefined, backlog }
}

function byAddress(asked: AskedAddress): ActivatedSocket | undefined {
  const all = activation().sockets.flatMap((socket) => (socket.about ? [{ socket, ...asOffered(socket.about) }] : []))
  return find(asked, all.filter(({ kind, address }) => kind !== 'unix' || leadsSomewhere(address)))?.socket
}

/** As an offer would describe it. */
function asOffered(about: SocketDescription): OfferedListener {
  const { family, type, address, port, ipv6Only, backlog } = about
  const kind = family === 'unix' ? 'unix' : type === 'dgram' ? 'udp' : 'tcp'
  return { name: nameOf(about), kind, asked: '', address, port, ipv6: family === 'inet6', ipv6Only, backlog }
}

/** A file that was removed leads nowhere, though the socket is open. An abstract name has none, and this user may not see every file. */
function leadsSomewhere(address: string): boolean {
  if (address.startsWith('\0')) return true
  try {
    return lstatSync(address).isSocket()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT'
  }
}
