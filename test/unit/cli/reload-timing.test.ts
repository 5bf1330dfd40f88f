/** What `handover reload --timing` makes of the steps that a new process tells. */

import { describe, expect, it } from 'vitest'
import { describeTiming, phasesOf } from '../../helpers/internals.js'

const at = 1_000_000
const steps = { hello: 180, offered: 182, ready: 190, serving: 195 }

describe('the phases of a start', () => {
  it('follow each other from the trigger to the first answer, where the app loads Handover itself', () => {
    expect(phasesOf({ at: at + 10, node: 60, load: 80, loaded: 95, ...steps, answered: 200 }, at))
      .toEqual({ start: 10, node: 60, load: 15, app: 105, offer: 2, prepare: 8, commit: 5, answer: 5 })
  })

  it('have Handover before the end of the boot, where it is preloaded', () => {
    expect(phasesOf({ at: at + 10, node: 70, load: 50, loaded: 65, ...steps }, at))
      .toEqual({ start: 10, node: 50, load: 15, app: 115, offer: 2, prepare: 8, commit: 5, answer: null })
  })

  it('are zero where a spare process had done them before the trigger', () => {
    expect(phasesOf({ at: at - 100, node: 70, load: 50, loaded: 65, ...steps }, at))
      .toEqual({ start: 0, node: 0, load: 0, app: 80, offer: 2, prepare: 8, commit: 5, answer: null })
  })

  it('have no offer where no process handed over', () => {
    expect(phasesOf({ at, node: 60, load: 80, loaded: 95, serving: 200 }, at))
      .toEqual({ start: 0, node: 60, load: 15, app: 125, offer: null, prepare: null, commit: 0, answer: null })
  })
})

describe('the table', () => {
  const phases = phasesOf({ at, node: 60, load: 80, loaded: 95, ...steps }, at)

  it('has a line for each phase, and a column for each slot', () => {
    const lines = describeTiming([{ slot: 0, pid: 1, phases }, { slot: 1, pid: 2, phases }]).split('\n')
    expect(lines).toHaveLength(10)
    expect(lines[0]).toMatch(/^where the time went, in ms +slot 0 +slot 1$/)
    expect(lines[2]).toMatch(/^Node boots +60 +60$/)
    expect(lines[8]).toMatch(/^until its first answer is written +- +-$/)
  })

  it('says where the new version tells nothing, and how many slots are not shown', () => {
    expect(describeTiming([])).toBe('timing: the new version does not tell\n')
    expect(describeTiming(Array.from({ length: 10 }, (_, slot) => ({ slot, pid: slot, phases })))).toMatch(/and 2 more: see --json\n$/)
  })
})
