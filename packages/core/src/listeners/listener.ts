/**
 * One listener of this process: its server or UDP socket, how an offer describes it, and where the file of a Unix socket is.
 *
 * The description comes from the kernel, and from what the program asked for. The set of them is in listener-registry.ts.
 */

import type dgram from 'node:dgram'
import net from 'node:net'
import path from 'node:path'
import { activation } from '../platform/activated-sockets.js'
import { fileId } from '../platform/file-id.js'
import { defaultBacklog, native, type SocketDescription } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { nameOf } from '../platform/socket-name.js'
import type { OfferedListener } from '../protocol/handover-messages.js'
import { isByDescriptor, isEphemeral, keyOf, type AskedAddress } from './listener-match.js'

export interface Listener {
  readonly owner: net.Server | dgram.Socket
  about: OfferedListener
  /** Claimed from the predecessor, or new in this generation. */
  kept: boolean
  /** The absolute path of a Unix socket's file. */
  readonly file: string | undefined
  /** Where the program has moved that file. */
  where: string | undefined
  /** Its permissions when it was last seen. */
  mode: number | undefined
  /** This process, or a generation before it, bound the path. A socket that was passed in (systemd) keeps its file. */
  readonly ownsFile: boolean
  /** Asked for with `reusePort`. */
  readonly reusePort: boolean
}

export const isServer = (owner: net.Server | dgram.Socket): owner is net.Server => owner instanceof net.Server

/** By the kernel; without the addon, by what Node knows. */
function describe(owner: net.Server | dgram.Socket): SocketDescription | undefined {
  const fd = fdOf(owner)
  const found = fd === undefined ? undefined : native?.describe(fd)
  if (typeof found === 'object') return found
  const address = owner.address()
  if (address === null) return undefined
  const plain = { type: isServer(owner) ? 'stream' : 'dgram', listening: true, ipv6Only: false, backlog: 0 } as const
  return typeof address === 'string'
    ? { ...plain, family: 'unix', address, port: 0 }
    : { ...plain, family: address.family === 'IPv6' ? 'inet6' : 'inet', address: address.address, port: address.port }
}

/** True where this process, or a generation before it, got the socket as a descriptor. */
function isPassed(owner: net.Server | dgram.Socket, about: OfferedListener): boolean {
  const fd = fdOf(owner)
  return isByDescriptor(about) || (fd !== undefined && activation().has(fd))
}

/** `call`: what the program asked for; undefined for listen(handle). Undefined where the owner does not listen. */
export function listenerOf(
  owner: Listener['owner'], call: AskedAddress | undefined, claimed: OfferedListener | undefined, backlog: number
): Listener | undefined {
  const found = describe(owner)
  if (found === undefined) return undefined
  const { port, ipv6Only } = found
  const unix = found.family === 'unix'
  const asked: AskedAddress = call ?? (unix ? { kind: 'unix', path: found.address } : { kind: 'tcp', host: found.address, port, ipv6Only })
  const at = unix ? (asked.path ?? claimed?.address ?? found.address) : found.address
  const named = unix && at !== '' && !at.startsWith('\0')
  const ephemeral = asked.fd === undefined ? !unix && (asked.port ?? 0) === 0 : claimed !== undefined && isEphemeral(claimed)
  const file = claimed?.file ?? (named && native ? fileId(at) : undefined)
  const about: OfferedListener = {
    name: nameOf({ ...found, address: at }),
    kind: found.type === 'dgram' ? 'udp' : unix ? 'unix' : 'tcp',
    asked: asked.fd === undefined ? keyOf(asked) : (claimed?.asked ?? keyOf(asked)),
    ...(ephemeral && { ephemeral }),
    address: at,
    port,
    ipv6: found.family === 'inet6',
    ipv6Only,
    backlog: Math.max(backlog, found.backlog, claimed?.backlog ?? 0) || defaultBacklog,
    ...(file !== undefined && { file })
  }
  return {
    owner,
    about,
    kept: claimed !== undefined,
    file: named ? path.resolve(at) : undefined,
    where: claimed?.path,
    mode: undefined,
    ownsFile: !isPassed(owner, about),
    reusePort: call?.reusePort ?? false
  }
}
