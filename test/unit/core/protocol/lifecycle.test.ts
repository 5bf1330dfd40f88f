/** The table of moves: what is in it happens, what is not does not, neither in the compiler's eyes nor at run time. */

import { describe, expect, it } from 'vitest'
import { Lifecycle, type LifecycleState, moves, type State } from '../../../helpers/internals.js'

const names = Object.keys(moves) as LifecycleState[]
const peer = { pid: 2, generation: 2 }
const stateOf = (is: LifecycleState): State => ({ is, predecessor: peer, successor: peer }) as State

/** Some way from `idle` to each state. */
function wayTo(state: LifecycleState): LifecycleState[] {
  const ways: LifecycleState[][] = [['idle']]
  for (const way of ways) {
    if (way.at(-1) === state) return way
    for (const next of moves[way.at(-1)!]) if (!way.includes(next)) ways.push([...way, next])
  }
  throw new Error(`no way leads to ${state}`)
}

const move = (machine: Lifecycle, from: LifecycleState, to: LifecycleState): void => {
  (machine.move as (from: LifecycleState, to: State) => void).call(machine, from, stateOf(to))
}

function machineIn(state: LifecycleState): Lifecycle {
  const machine = new Lifecycle(() => undefined)
  const way = wayTo(state)
  way.slice(1).forEach((to, index) => { move(machine, way[index]!, to) })
  return machine
}

describe('the state machine', () => {
  it('begins with nothing listening', () => {
    expect(new Lifecycle(() => undefined).state).toEqual({ is: 'idle' })
  })

  it.each(names.flatMap((from) => moves[from].map((to) => [from, to] as const)))('moves from %s to %s and says so', (from, to) => {
    const seen: [LifecycleState, State][] = []
    const machine = new Lifecycle((before, after) => { seen.push([before, after]) })
    const way = [...wayTo(from), to]
    way.slice(1).forEach((next, index) => { move(machine, way[index]!, next) })
    expect(machine.state).toEqual(stateOf(to))
    expect(seen.at(-1)).toEqual([from, stateOf(to)])
  })

  it.each(names.flatMap((from) => names.filter((to) => !(moves[from] as readonly LifecycleState[]).includes(to)).map((to) => [from, to] as const)))('does not move from %s to %s', (from, to) => {
    const machine = machineIn(from)
    expect(() => { move(machine, from, to) }).toThrow(`illegal move: ${from} to ${to} while ${from}`)
    expect(machine.state.is).toBe(from)
  })

  it('does not move from a state in which it is not', () => {
    const machine = machineIn('serving')
    expect(() => { machine.move('draining', { is: 'closing' }) }).toThrow('illegal move: draining to closing while serving')
    expect(machine.state.is).toBe('serving')
  })

  it('reaches every state, and leaves every one but the last', () => {
    for (const name of names) expect(wayTo(name).at(-1)).toBe(name)
    expect(names.filter((name) => moves[name].length === 0)).toEqual(['ended'])
  })

  it('serves again after every failure before the point of no return, and after an undo', () => {
    for (const name of ['launching', 'offering', 'committing', 'draining'] as const) expect(moves[name]).toContain('serving')
  })
})

describe('the compiler', () => {
  it('knows the moves and the data of each state', () => {
    const check = (machine: Lifecycle): void => {
      machine.move('serving', { is: 'launching' })
      machine.move('offering', { is: 'committing', successor: peer })
      machine.move('draining', { is: 'serving' })
      // @ts-expect-error a process that serves commits to nobody before it has launched and offered
      machine.move('serving', { is: 'committing', successor: peer })
      // @ts-expect-error what has ended stays so
      machine.move('ended', { is: 'serving' })
      // @ts-expect-error an offer is made to somebody
      machine.move('launching', { is: 'offering' })
      // @ts-expect-error a process that serves has no successor
      machine.move('committing', { is: 'serving', successor: peer })
      // @ts-expect-error no such state
      machine.move('serving', { is: 'upgrading' })
      machine.move('ready', { is: 'serving' })
      // @ts-expect-error ready comes after preparing
      machine.move('ready', { is: 'preparing', predecessor: peer })
    }
    expect(check).toBeTypeOf('function')
  })
})
