/**
 * The program test/programs/drain.mjs under a test of the drain, and what every one of these tests says of it.
 */

import { expect, onTestFinished } from 'vitest'
import { type Address, Client } from './client.js'
import { Program, type ProgramEvent, programPath } from './program.js'

export interface Started {
  readonly program: Program
  readonly address: Address
  /** A connection on which one request has been answered. */
  idleClient(): Promise<Client>
  /** A connection that has only been made. */
  client(): Promise<Client>
  /** Ends what /held and /streaming wait for. */
  release(pid?: number): void
  /** Sends the signal; resolves when the drain has begun. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

export interface DrainOptions {
  readonly kind?: string
  /** HandoverOptions. */
  readonly options?: Readonly<Record<string, unknown>>
  /** Options of the server. */
  readonly server?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
}

/** A program that ends with the test. */
export async function start({ kind = 'http', options = {}, server = {}, env = {} }: DrainOptions = {}): Promise<Started> {
  const program = Program.start(programPath('drain.mjs'), { env: { KIND: kind, OPTIONS: JSON.stringify(options), SERVER: JSON.stringify(server), ...env } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await Promise.race([program.event('listening'), program.ended.then(() => { throw new Error(`it ended before it listened: ${program.stderr}`) })]) as unknown as { address: Address }
  const client = async (): Promise<Client> => {
    const connected = await Client.connect(address, { tls: kind === 'https' })
    onTestFinished(() => { connected[Symbol.dispose]() })
    return connected
  }
  return {
    program,
    address,
    client,
    async idleClient() {
      const connected = await client()
      await connected.request('/').received(/answer to \//)
      connected.text = ''
      return connected
    },
    release: (pid = program.pid) => { process.kill(pid, 'SIGUSR2') },
    async stop(signal = 'SIGTERM') {
      process.kill(program.pid, signal)
      await program.event('draining')
    }
  }
}

export interface FinalReport {
  readonly result: string
  readonly connections: { readonly open: number; readonly drained: number; readonly closedIdle: number; readonly cut: number }
  readonly requestsCut: readonly { readonly method: string; readonly path: string; readonly ms: number }[]
  readonly durations: { readonly drain: number }
}

export const reportOf = (event: ProgramEvent): FinalReport => event['report'] as FinalReport

/** The process ends with status 0, and its report counts every connection once. */
export async function endsWell(program: Program): Promise<FinalReport> {
  expect(await program.ended, program.stderr).toEqual({ code: 0, signal: null })
  const report = reportOf(await program.event('report', (event) => reportOf(event).result === 'stopped'))
  const { open, drained, closedIdle, cut } = report.connections
  expect(drained + closedIdle + cut, JSON.stringify(report.connections)).toBe(open)
  return report
}
