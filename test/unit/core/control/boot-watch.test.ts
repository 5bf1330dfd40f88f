/** What a reload tells of the boots of its successors. */

import { expect, it, vi } from 'vitest'
import { watchBoots, type Boot } from '../../../helpers/internals.js'

it('a step of a boot that was over before a look is told, in its place, and once', () => {
  vi.useFakeTimers()
  try {
    const boot: Boot = { slot: 1, pid: 7, step: 'prepares', stderr: '' }
    let boots: Boot[] = []
    const told: string[] = []
    const end = watchBoots(() => boots, ({ event, slot, pid }) => { told.push(`${event} ${slot} ${pid}`) })
    vi.advanceTimersByTime(100)
    boots = [boot]
    vi.advanceTimersByTime(100)
    boots = [{ ...boot, step: 'ready' }]
    vi.advanceTimersByTime(100)
    expect(told).toEqual(['boots 1 7', 'prepares 1 7', 'ready 1 7'])
    end()
    expect(told).toHaveLength(3)
  } finally {
    vi.useRealTimers()
  }
})
