/**
 * Whose process is at the other end of a loopback connection: the user id in /proc/net/tcp and tcp6 (proc(5)), which name both ends of each
 * connection of this network namespace.
 */

import { readFile } from 'node:fs/promises'
import net, { type Socket } from 'node:net'
import { endianness } from 'node:os'

/** Only an open connection has its user: the rest of a closed one says 0, which is root. */
const established = '01'

/** As the kernel writes it: each word of 32 bits in the order of this machine. */
const hex = (words: readonly number[][]): string => words.map((bytes) => {
  const ordered = endianness() === 'LE' ? bytes.toReversed() : bytes
  return ordered.map((byte) => byte.toString(16).padStart(2, '0')).join('').toUpperCase()
}).join('')

/** In each form in which the other process may have the address; none if it is no loopback address. */
function formsOf(address: string): string[] {
  const plain = address.replace(/^::ffff:/i, '')
  if (plain === '::1') return [hex([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])]
  if (!net.isIPv4(plain) || !plain.startsWith('127.')) return []
  const bytes = plain.split('.').map(Number)
  return [hex([bytes]), hex([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 255, 255], bytes])]
}

const place = (address: string, port: number): string => `${address}:${port.toString(16).padStart(4, '0').toUpperCase()}`

/** The two ends as this process sees them. */
type Ends = Pick<Socket, 'remoteAddress' | 'remotePort' | 'localAddress' | 'localPort'>

/** `table`: of /proc/net/tcp or tcp6. */
export function userIn(table: string, { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 }: Ends): number | undefined {
  const here = formsOf(localAddress)
  const pairs = new Set(formsOf(remoteAddress).flatMap((form, index) =>
    (here[index] === undefined ? [] : [`${place(form, remotePort)} ${place(here[index], localPort)}`])))
  for (const line of table.split('\n')) {
    const [, local, remote, state, , , , uid] = line.trim().split(/\s+/)
    if (state === established && pairs.has(`${local} ${remote}`)) return Number(uid)
  }
  return undefined
}

/** Undefined where it is not known, as on another machine, or without /proc. */
export async function userOf(socket: Socket): Promise<number | undefined> {
  for (const file of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const uid = userIn(await readFile(file, 'latin1').catch(() => ''), socket)
    if (uid !== undefined) return uid
  }
  return undefined
}
