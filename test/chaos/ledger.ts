/**
 * What may be lost in an episode of chaos: of a process that was killed exactly the connections that it had, looked up while it stood
 * still; and of a time in which nobody had the port, connects. Everything else that was lost breaks a promise.
 */

import { readFileSync } from 'node:fs'
import { nowMs } from '@handover/load'
import { waitFor } from '../helpers/program.js'
import { tcpSockets, tcpSocketsOf } from '../helpers/net-tables.js'

/** On the clock of nowMs(). */
interface Outage {
  readonly fromMs: number
  toMs: number
}

interface Death extends Outage {
  readonly what: string
  /** Of the clients' ends. */
  readonly ports: ReadonlySet<number>
}

export interface Lost {
  readonly begunMs: number
  readonly atMs: number
  /** A reason of the load client, or how a WebSocket ended. */
  readonly reason: string
  readonly port?: number | undefined
}

const inDeath = new Set(['reset', 'closed', 'cut', 'ECONNRESET', 'EPIPE', '1006', 'socket hang up'])
const inOutage = new Set(['refused', 'connect', 'reset', 'closed', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE', '1001', '1006', '1012', 'socket hang up'])
/** So many with the same result, in a row: on a busy machine a process may hear of an end late. */
const looks = 5
/** The clocks of the load and of this file are read some microseconds apart. */
const slackMs = 5

export class Ledger {
  readonly #deaths: Death[] = []
  readonly #outages: Outage[] = []

  /**
   * Kills the process when what it has is known: it stands still first. Resolves with the moment of the kill when the clients have seen
   * it; undefined where it was gone before.
   */
  async kill(pid: number, what: string, server: { readonly port: number }): Promise<number | undefined> {
    if (!await suspend(pid)) return undefined
    const death: Death = { what: `${what} ${pid}`, fromMs: nowMs(), toMs: Infinity, ports: clientsOf(pid, server.port) }
    this.#deaths.push(death)
    process.kill(pid, 'SIGKILL')
    await waitFor(() => stateOf(pid) === undefined || stateOf(pid) === 'Z')
    // Its predecessor may have copies, and closes them when it has heard of the end: from then on as many stay open as it serves itself.
    for (let [same, before] = [0, -1]; same < looks;) {
      const open = established(server.port, death.ports)
      same = open === before ? same + 1 : 0
      before = open
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
    // What the kernel told the clients of this process is read in the next turn of the loop.
    for (let turns = 0; turns < 3; turns++) await new Promise((resolve) => setImmediate(resolve))
    death.toMs = nowMs()
    return death.fromMs
  }

  /** Nobody has the port from this moment on and while `until` runs: it was the wish of this test, or the last process was killed. */
  async outage<T>(until: () => Promise<T>, fromMs = nowMs()): Promise<T> {
    const outage: Outage = { fromMs, toMs: Infinity }
    this.#outages.push(outage)
    try {
      return await until()
    } finally {
      outage.toMs = nowMs()
    }
  }

  /** Whether the loss is one that the episode itself explains. */
  explains({ begunMs, atMs, reason, port }: Lost): boolean {
    const within = ({ fromMs, toMs }: Outage): boolean => atMs >= fromMs - slackMs && begunMs <= toMs + slackMs
    return this.#deaths.some((death) => port !== undefined && death.ports.has(port) && inDeath.has(reason) && within(death)) ||
      this.#outages.some((outage) => inOutage.has(reason) && within(outage))
  }

  get text(): string {
    return JSON.stringify({ deaths: this.#deaths.map(({ ports, ...death }) => ({ ...death, ports: [...ports] })), outages: this.#outages })
  }
}

/** proc_pid_stat(5); undefined where there is none. */
function stateOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text[text.lastIndexOf(')') + 2]
  } catch {
    return undefined
  }
}

/** Resolves when it stands still; false where it has ended. */
export async function suspend(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 'SIGSTOP')
  } catch {
    return false
  }
  await waitFor(() => ['T', 'Z', 'X', undefined].includes(stateOf(pid)))
  return stateOf(pid) === 'T'
}

export function resume(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT')
  } catch { /* it has ended */ }
}

/** How many of these clients' connections are open on the server's side. */
function established(port: number, clients: ReadonlySet<number>): number {
  return tcpSockets().filter((socket) => socket.port === port && socket.state === 'established' && clients.has(socket.remotePort)).length
}

/** The ports of the clients whose connections to `port` this process has. */
function clientsOf(pid: number, port: number): Set<number> {
  return new Set(tcpSocketsOf(pid).filter((socket) => socket.port === port).map(({ remotePort }) => remotePort))
}
