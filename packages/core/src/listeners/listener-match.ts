/**
 * Which offered listener a listen() call means.
 *
 * Listeners match by their address or path, or by what the program asked for when it created them (port 0, a host name, an inherited
 * descriptor), never by position. Pure.
 */

import { isIP } from 'node:net'
import type { SocketDescription } from '../platform/native.js'
import { bracket, nameOf } from '../platform/socket-name.js'
import type { OfferedListener } from '../protocol/handover-messages.js'

/** The part of listen()'s and bind()'s arguments that says where. */
export interface AskedAddress {
  readonly kind: 'tcp' | 'unix' | 'udp'
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly path?: string | undefined
  readonly fd?: number | undefined
  readonly ipv6Only?: boolean | undefined
  /** Others may listen at the same address, if they say so, too. */
  readonly reusePort?: boolean | undefined
}

/** The key of what was asked for. */
export function keyOf(asked: AskedAddress): string {
  if (asked.fd !== undefined) return `fd ${asked.fd}`
  if (asked.kind === 'unix') return `unix ${asked.path ?? ''}`
  return `${asked.kind} ${bracket(asked.host ?? '*')}:${asked.port ?? 0}${asked.ipv6Only ? ' ipv6Only' : ''}`
}

/** The system chose the port, so the listener may come and go. */
export const isEphemeral = ({ ephemeral = false }: OfferedListener): boolean => ephemeral

/** The program listens on a descriptor that it inherited: listen({ fd }). */
export const isByDescriptor = ({ asked }: OfferedListener): boolean => asked.startsWith('fd ')

/** Where a call without a host is bound: `::` where there is IPv6, else `0.0.0.0`. */
const unspecified = ['::', '0.0.0.0']
const localhost = ['127.0.0.1', '::1']

interface Place {
  readonly address: string
  readonly ipv6Only: boolean
}

type PortPlace = Place & Pick<OfferedListener, 'kind' | 'port'>

/** Whether one socket that listens at `a` keeps another one from `b`, at the same port. */
export function overlap(a: Place, b: Place): boolean {
  const [six, four] = a.address.includes(':') ? [a, b] : [b, a]
  const isMixed = six.address.includes(':') && !four.address.includes(':')
  if (isMixed) return six.address === '::' && !six.ipv6Only
  return a.address === b.address || unspecified.includes(a.address) || unspecified.includes(b.address)
}

/** The two are at addresses of one port of which only one can be listened on. */
export const isInTheWay = (one: PortPlace, other: PortPlace): boolean =>
  one.kind === 'tcp' && other.kind === 'tcp' && one.port === other.port && overlap(one, other)

/** Where a call with this host may be bound, in numbers: of a name only what `localhost` means is known without asking. */
export function addressesOf(host: string | undefined): readonly string[] {
  if (host === undefined || host === '') return unspecified
  return host === 'localhost' ? localhost : isIP(host) > 0 ? [host] : []
}

function fits(asked: AskedAddress, offered: OfferedListener): boolean {
  if (asked.fd !== undefined || asked.kind !== offered.kind) return false
  if (asked.kind === 'unix') return asked.path === offered.address
  if (asked.port !== offered.port || asked.port === 0) return false
  // On `::`, with and without IPv4 are two different listeners.
  return addressesOf(asked.host).includes(offered.address) &&
    (offered.address !== '::' || asked.kind === 'udp' || (asked.ipv6Only ?? false) === offered.ipv6Only)
}

/** The first offered listener that a call means: one that was asked for in the same words goes first. */
export function find<T extends OfferedListener>(asked: AskedAddress, offered: Iterable<T>): T | undefined {
  const key = keyOf(asked)
  let fitting: T | undefined
  for (const candidate of offered) {
    if (candidate.kind === 'control') continue
    if (candidate.asked === key) return candidate
    if (!fitting && fits(asked, candidate)) fitting = candidate
  }
  return fitting
}

/** How the descriptor differs from what the offer says; undefined: it does not. */
export function mismatch(offered: OfferedListener, found: SocketDescription): string | undefined {
  const expected = offered.kind === 'udp' ? 'dgram' : 'stream'
  if (found.type !== expected) return `a ${found.type} socket instead of a ${expected} socket`
  const mayNotListen = offered.kind === 'udp' || (offered.kind === 'tcp' && offered.bound === true)
  if (!mayNotListen && !found.listening) return 'a socket that does not listen'
  const family = offered.kind === 'unix' || offered.kind === 'control' ? 'unix' : offered.ipv6 ? 'inet6' : 'inet'
  if (found.family !== family) return `a socket of family ${found.family} instead of ${family}`
  if (offered.kind === 'unix' || offered.kind === 'control') return undefined // it may have been bound under another name
  if (found.address !== offered.address || found.port !== offered.port) return `${nameOf(found)} instead of ${offered.name}`
  return undefined
}
