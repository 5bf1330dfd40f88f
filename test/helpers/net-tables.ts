/** The kernel's tables of sockets, proc_pid_net(5). */

import { readFileSync } from 'node:fs'
import { descriptorsOf } from './program.js'

export interface TcpSocket {
  readonly state: 'listening' | 'established' | 'other'
  readonly port: number
  /** 0 where it listens. */
  readonly remotePort: number
  readonly inode: string
}

const states: Readonly<Record<string, TcpSocket['state']>> = { '01': 'established', '0A': 'listening' }
const portOf = (address = ''): number => parseInt(address.slice(address.indexOf(':') + 1), 16)

/** The words of each row, of all sockets in the network namespace of this process. */
export const netTable = (pid: number | 'self', name: 'tcp' | 'tcp6' | 'udp' | 'udp6' | 'unix'): string[][] =>
  readFileSync(`/proc/${pid}/net/${name}`, 'utf8').split('\n').slice(1, -1).map((line) => line.trim().split(/\s+/))

/** Of IPv4. */
export function tcpSockets(pid: number | 'self' = 'self'): TcpSocket[] {
  return netTable(pid, 'tcp').map(([, local, remote, state = '', , , , , , inode = '']) => (
    { state: states[state] ?? 'other', port: portOf(local), remotePort: portOf(remote), inode }
  ))
}

/** Those that this process has open. */
export function tcpSocketsOf(pid: number): TcpSocket[] {
  const open = new Set(descriptorsOf(pid).values())
  return tcpSockets(pid).filter(({ inode }) => open.has(`socket:[${inode}]`))
}

/** The ports on which this process listens. */
export function listeningPorts(pid: number): number[] {
  return tcpSocketsOf(pid).filter(({ state }) => state === 'listening').map(({ port }) => port)
}
