/** Where a drill sends its requests: to a URL, or to the listeners that a status names. Pure. */

import type { Target } from '@handover/load'

export interface Place {
  readonly target: Target
  readonly path: string
  /** For people: `https://127.0.0.1:3000/`, `/ by unix /run/app.sock`. */
  readonly name: string
}

export interface Where {
  /** `http://…` or `https://…`. Without it the listeners say where. */
  readonly url?: string
  /** Names as in ProcessStatus.listeners: `tcp 0.0.0.0:3000`, `unix /run/app.sock`. */
  readonly listeners: readonly string[]
  /** Goes before the path of `url`. Default `/`. */
  readonly path?: string
}

/** All places that may be meant, the likeliest first. Whether a listener speaks TLS is not known: both are tried. */
export function placesOf({ url, listeners, path }: Where): readonly Place[] {
  if (url !== undefined) {
    const { protocol, hostname, port, pathname, search } = new URL(url)
    const tls = protocol === 'https:'
    const target = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port === '' ? (tls ? 443 : 80) : port) }
    return [placeOf(target, tls, path ?? `${pathname}${search}`)]
  }
  return listeners.flatMap((listener) => targetOf(listener) ?? [])
    .flatMap((target) => [false, true].map((tls) => placeOf(target, tls, path ?? '/')))
}

function placeOf(where: Target, tls: boolean, path: string): Place {
  const name = 'path' in where
    ? `${path} by ${tls ? 'TLS on ' : ''}unix ${where.path.replace(/^\0/, '@')}`
    : `${tls ? 'https' : 'http'}://${where.host.includes(':') ? `[${where.host}]` : where.host}:${where.port}${path}`
  return { target: { ...where, tls }, path, name }
}

function targetOf(listener: string): Target | undefined {
  const [kind, address] = /^(unix|tcp) (.+)$/.exec(listener)?.slice(1) ?? []
  if (address === undefined) return undefined // udp
  if (kind === 'unix') return { path: address.replace(/^@/, '\0') }
  const [host, port] = /^\[?(.+?)\]?:(\d+)$/.exec(address)?.slice(1) ?? []
  if (host === undefined) return undefined
  // `::` takes IPv4 as well, and where IPv6 is switched off there is no ::1.
  return { host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port: Number(port) }
}
