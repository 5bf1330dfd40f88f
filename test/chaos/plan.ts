/**
 * What happens in an episode of chaos, drawn from its seed: the same seed gives the same roof and the same steps with the same pauses.
 * When a byte comes and where a process stands at that moment is up to the machine.
 */

import { type Random, seededRandom } from '../helpers/built.js'

/** `keeper`: under `handover run`. */
export interface Roof {
  readonly keeper: boolean
  readonly kind: 'http' | 'fastify' | 'plain'
  readonly workers: number
}

const roofs: readonly Roof[] = [
  { keeper: false, kind: 'http', workers: 1 },
  { keeper: true, kind: 'plain', workers: 1 },
  { keeper: false, kind: 'fastify', workers: 1 },
  { keeper: true, kind: 'plain', workers: 3 },
  { keeper: true, kind: 'fastify', workers: 1 }
]

/** `another keeper`: the keeper alone is replaced. */
export type Trigger = 'signal' | 'command' | 'two at once' | 'started again' | 'another keeper'
/** `command`: the process that asks for the reload. */
export type Victim = 'successor' | 'predecessor' | 'keeper' | 'spare' | 'command'

export type Step =
  | { readonly do: 'reload'; readonly by: Trigger }
  /** `build`: a word of test/programs/behaviour.mjs. */
  | { readonly do: 'bad build'; readonly build: string; readonly by: 'signal' | 'command' }
  | { readonly do: 'kill in a reload'; readonly victim: Victim; readonly afterMs: number }
  | { readonly do: 'kill'; readonly victim: 'server' | 'keeper' }
  | { readonly do: 'pause in a reload'; readonly victim: Victim; readonly afterMs: number; readonly forMs: number }
  | { readonly do: 'pause'; readonly victim: 'server' | 'keeper'; readonly forMs: number }
  /** The successor dies when it has just begun to serve. */
  | { readonly do: 'undo' }
  | { readonly do: 'stop and start' }

export interface Plan {
  readonly seed: number
  readonly roof: Roof
  readonly steps: readonly Step[]
}

const builds = ['throw', 'exit:3', 'exit:0', 'syntax-error', 'reject', 'hang', 'never-listens']

export function planOf(seed: number, length = 3): Plan {
  const random = seededRandom(seed * 7_919)
  const roof = roofs[seed % roofs.length]!
  return { seed, roof, steps: Array.from({ length }, () => stepOf(random, roof)) }
}

function stepOf(random: Random, { keeper }: Roof): Step {
  const one = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!
  const upTo = (ms: number): number => Math.floor(random() * ms)
  const inReload = (): Victim => one(keeper ? ['successor', 'predecessor', 'keeper', 'spare', 'command'] : ['successor', 'predecessor', 'command'])
  const outside = (): 'server' | 'keeper' => (keeper ? one(['server', 'server', 'keeper']) : 'server')
  const makers: readonly (() => Step)[] = [
    () => ({ do: 'reload', by: one(keeper ? ['signal', 'command', 'two at once', 'another keeper'] : ['signal', 'command', 'two at once', 'started again']) }),
    () => ({ do: 'bad build', build: one(builds), by: one(['signal', 'command']) }),
    () => ({ do: 'kill in a reload', victim: inReload(), afterMs: upTo(900) }),
    () => ({ do: 'kill in a reload', victim: inReload(), afterMs: upTo(900) }),
    () => ({ do: 'kill', victim: outside() }),
    () => ({ do: 'pause in a reload', victim: inReload(), afterMs: upTo(600), forMs: 50 + upTo(500) }),
    () => ({ do: 'pause', victim: outside(), forMs: 50 + upTo(400) }),
    () => ({ do: 'undo' }),
    () => ({ do: 'stop and start' })
  ]
  return one(makers)()
}

/** One line, for a test's name. */
export function described({ seed, roof, steps }: Plan): string {
  const what = steps.map((step) => Object.entries(step).map(([key, value]) => (key === 'do' || key === 'build' || key === 'victim' ? value : key.endsWith('Ms') ? `${key.slice(0, -2)} ${value} ms` : `${key} ${value}`)).join(' '))
  return `seed ${seed}: ${roof.kind} ${roof.keeper ? `under a keeper with ${roof.workers} worker${roof.workers === 1 ? '' : 's'}` : 'with the adapter'}: ${what.join('; ')}`
}
