/**
 * Gives each process with the same `--inspect` an inspector of its own: Node opens none where the port is taken. The system then chooses
 * another port; the one that was asked for goes to the next process that starts while it is free.
 */

import net from 'node:net'
import { hideWords } from './path-guard.js'
import type { CommandLine } from './command-line.js'

/** The address that was asked for, in a process that has another port. Removed before any code of the program runs. */
export const inspectorMark = 'HANDOVER_INSPECTOR'

const opens = /^--inspect(?:-brk|-wait)?(?:=(.*))?$/
const says = /^--(?:inspect|debug)-port=(.*)$/
/** How long a connect to an address of this machine may take, in milliseconds. */
const connectMs = 1_000

export interface InspectorAddress {
  readonly host: string
  /** 0: the system chooses it. */
  readonly port: number
}

/** Where these options of Node open an inspector, if they do; later ones win. https://nodejs.org/api/cli.html#--inspecthostport */
export function inspectorIn(options: readonly string[]): InspectorAddress | undefined {
  // In the process that serves, and most have none: the expressions below would be compiled there, which takes half a millisecond.
  if (!options.some((word) => word.startsWith('--inspect'))) return undefined
  let isOpen = false
  let [host, port] = ['127.0.0.1', 9_229]
  for (const word of options) {
    const opening = opens.exec(word)
    if (opening) isOpen = true
    const [, text = ''] = opening ?? says.exec(word) ?? []
    const [, givenHost, , givenPort] = /^(?:(\[[^\]]*\]|[^:]*?)(:|$))?(\d+)?$/.exec(/^\d+$/.test(text) ? `:${text}` : text) ?? []
    if (givenHost !== undefined && givenHost !== '') host = givenHost.replace(/^\[|\]$/g, '')
    if (givenPort !== undefined) port = Number(givenPort)
  }
  return isOpen ? { host, port } : undefined
}

const textOf = ({ host, port }: InspectorAddress): string => `${host.includes(':') ? `[${host}]` : host}:${port}`

const isTaken = async ({ host, port }: InspectorAddress): Promise<boolean> => await new Promise((resolve) => {
  const socket = net.connect({ host, port, timeout: connectMs })
  const over = (taken: boolean) => (): void => {
    socket.destroy()
    resolve(taken)
  }
  socket.once('connect', over(true)).once('timeout', over(true)).once('error', over(false))
})

/** Given to processes that live; they may not have opened it yet. */
const given = new Set<string>()

/** Where the inspector of this process listens; undefined where it is not open. Node may have been built without one. */
export function inspectorUrl(): string | undefined {
  try {
    return process.getBuiltinModule('node:inspector').url()
  } catch {
    return undefined
  }
}

/** A command line with a port of its own for the inspector, where it needs one. */
export interface OwnInspector {
  readonly command: CommandLine
  readonly env: NodeJS.ProcessEnv
  /** Call it when the process has ended, or was not started. */
  over(): void
}

export async function withOwnInspector(command: CommandLine, env: NodeJS.ProcessEnv): Promise<OwnInspector> {
  const { args, nodeOptions = 0 } = command
  const options = args.slice(0, nodeOptions)
  const asked = inspectorIn([...(env['NODE_OPTIONS'] ?? '').split(/\s+/), ...options])
  const free: OwnInspector = { command, env, over: () => undefined }
  if (!asked || asked.port === 0) return free
  const address = textOf(asked)
  if (!given.has(address) && !(await isTaken(asked)) && !given.has(address)) {
    given.add(address)
    return { ...free, over: () => { given.delete(address) } }
  }
  // The last one counts.
  const own = portOption(asked)
  const itsArgs = [...options, own, ...args.slice(nodeOptions)]
  return { ...free, command: { ...command, args: itsArgs, nodeOptions: nodeOptions + 1 }, env: { ...env, [inspectorMark]: address } }
}

const portOption = ({ host }: InspectorAddress): string => `--inspect-port=${textOf({ host, port: 0 })}`

/** Reads and removes the mark and its option. Answers the address that was asked for, where this process has another one. */
export function takeInspectorMark(env: NodeJS.ProcessEnv): string | undefined {
  const address = env[inspectorMark]
  Reflect.deleteProperty(env, inspectorMark)
  const asked = address === undefined ? undefined : inspectorIn([`--inspect=${address}`])
  if (!asked) return undefined
  hideWords([portOption(asked)])
  return address
}
