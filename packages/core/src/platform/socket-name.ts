/** The name of a socket in messages, reports and PROTOCOL.md: `tcp 0.0.0.0:3000`, `unix /run/app.sock`. Pure. */

import type { SocketDescription } from './native.js'

export const bracket = (host: string): string => (host.includes(':') ? `[${host}]` : host)

export function nameOf(description: SocketDescription): string {
  if (description.family === 'unix') return `unix ${description.address.replace(/^\0/, '@')}`
  return `${description.type === 'dgram' ? 'udp' : 'tcp'} ${bracket(description.address)}:${description.port}`
}
