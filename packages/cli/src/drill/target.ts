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
  readonly url?: string | undefined
  /** Names as in ProcessStatus.listeners: `tcp 0.0.0.0:3000`, `unix /run/app.sock`. */
  readonly listeners?: readonly string[] | undefined
  /** Goes before the path of `url`. Default `/`. */
  readonly path?: string | undefined
  /** Whether the listeners speak TLS. Without it both are tried. */
  readonly https?: boolean | undefined
}

/** All places that may be meant, the likeliest first, or what is wrong with the arguments. */
export function placesOf({ url, listeners = [], path, https }: Where): readonly Place[] | string {
  if (path !== undefined && !/^\/[\x21-\x7e]*$/.test(path)) return `the path ${JSON.stringify(path)} is not one: it begins with / and has no spaces`
  if (url !== undefined) {
    const parsed = URL.canParse(url) ? new URL(url) : undefined
    if (parsed === undefined || !['http:', 'https:'].includes(parsed.protocol)) return `${JSON.stringify(url)} is not a URL that begins with http:// or https://`
    const tls = parsed.protocol === 'https:'
    const port = Number(parsed.port === '' ? (tls ? 443 : 80) : parsed.port)
    return [placeOf({ host: parsed.hostname.replace(/^\[|\]$/g, ''), port }, tls, path ?? `${parsed.pathname}${parsed.search}`)]
  }
  const targets = listeners.flatMap((listener) => targetOf(listener) ?? [])
  if (targets.length === 0) return `there is no listener to send requests to${listeners.length > 0 ? ` among ${listeners.join(', ')}` : ''}: name a URL`
  return targets.flatMap((target) => (https === undefined ? [false, true] : [https]).map((tls) => placeOf(target, tls, path ?? '/')))
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
