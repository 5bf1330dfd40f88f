/** The table of moves of a slot: what is in it happens, what is not does not, neither in the compiler's eyes nor at run time. */

import { describe, expect, it } from 'vitest'
import { SlotLifecycle, slotMoves, type SlotState, type SlotStateName } from '../../helpers/internals.js'

const names = Object.keys(slotMoves) as SlotStateName[]
const stateOf = (is: SlotStateName): SlotState => ({ is, start: {}, server: {}, handover: {}, undo: {} }) as unknown as SlotState
const allowed = (from: SlotStateName): readonly SlotStateName[] => slotMoves[from]

/** Some way from `empty` to each state. */
function wayTo(state: SlotStateName): SlotStateName[] {
  const ways: SlotStateName[][] = [['empty']]
  for (const way of ways) {
    if (way.at(-1) === state) return way
    for (const next of allowed(way.at(-1)!)) if (!way.includes(next)) ways.push([...way, next])
  }
  throw new Error(`no way leads to ${state}`)
}

function move(slot: SlotLifecycle, from: SlotStateName, to: SlotStateName): void {
  (slot.move as (from: SlotStateName, to: SlotState) => void).call(slot, from, stateOf(to))
}

function slotIn(state: SlotStateName, moved?: (from: SlotStateName, to: SlotState) => void): SlotLifecycle {
  const slot = new SlotLifecycle(moved)
  const way = wayTo(state)
  way.slice(1).forEach((to, index) => { move(slot, way[index]!, to) })
  return slot
}

describe('the state of a slot', () => {
  it('begins with no worker', () => {
    expect(new SlotLifecycle().state).toEqual({ is: 'empty' })
  })

  it.each(names.flatMap((from) => allowed(from).map((to) => [from, to] as const)))('moves from %s to %s and says so', (from, to) => {
    const seen: (readonly [SlotStateName, SlotStateName])[] = []
    const slot = slotIn(from, (before, after) => { seen.push([before, after.is]) })
    move(slot, from, to)
    expect(slot.state).toEqual(stateOf(to))
    expect(seen.at(-1)).toEqual([from, to])
  })

  it.each(names.flatMap((from) => names.filter((to) => !allowed(from).includes(to)).map((to) => [from, to] as const)))('does not move from %s to %s', (from, to) => {
    const slot = slotIn(from)
    expect(() => { move(slot, from, to) }).toThrow(`illegal move of a slot: ${from} to ${to} while ${from}`)
    expect(slot.state.is).toBe(from)
  })

  it('does not move from a state in which it is not', () => {
    const slot = slotIn('serving')
    expect(() => { slot.move('returning', { is: 'empty' }) }).toThrow('illegal move of a slot: returning to empty while serving')
    expect(slot.state.is).toBe('serving')
  })

  it('reaches every state, and can become empty from every other one', () => {
    for (const name of names) expect(wayTo(name).at(-1)).toBe(name)
    expect(names.filter((name) => !allowed(name).includes('empty'))).toEqual(['empty'])
  })
})

describe('the compiler', () => {
  it('knows the moves and the data of each state', () => {
    const check = (slot: SlotLifecycle, { undo, handover, server }: { [key in 'undo' | 'handover' | 'server']: never }): void => {
      slot.move('handing-over', { is: 'undoable', undo })
      slot.move('alone', { is: 'empty' })
      // @ts-expect-error a predecessor that died does not serve again
      slot.move('alone', { is: 'serving', server })
      // @ts-expect-error an empty slot has no worker that hands over
      slot.move('empty', { is: 'handing-over', handover })
      // @ts-expect-error a worker serves
      slot.move('starting', { is: 'serving' })
      // @ts-expect-error no such state
      slot.move('serving', { is: 'launching' })
    }
    expect(check).toBeTypeOf('function')
  })
})
