/** How far the successors of a reload are, for whoever asked for it: each step of a boot, and what it writes to stderr. Decides nothing. */

import type { ReloadEvent } from '../protocol/control-messages.js'

export interface Boot {
  readonly slot?: number
  readonly pid: number
  readonly step: (typeof steps)[number]
  /** The last lines of its stderr. */
  readonly stderr: string
}

type BootEvent = Omit<ReloadEvent, 'ms'>

const lookMs = 25
const steps = ['boots', 'prepares', 'ready'] as const
const longestLine = 500

/** Looks now and then, and tells what has changed: a step that was over before a look, too. Answers a function that ends that. */
export function watchBoots(boots: () => readonly Boot[], tell: (event: BootEvent) => void): () => void {
  const known = new Map<number, Boot>()
  const look = (): void => {
    for (const boot of boots()) {
      const { pid, slot, step, stderr } = boot
      const before = known.get(pid)
      known.set(pid, boot)
      const about = { pid, ...(slot !== undefined && { slot }) }
      for (const event of steps.slice(before ? steps.indexOf(before.step) + 1 : 0, steps.indexOf(step) + 1)) tell({ event, ...about })
      const line = stderr.slice(stderr.lastIndexOf('\n') + 1).slice(0, longestLine)
      if (line !== '' && stderr !== before?.stderr) tell({ event: 'stderr', ...about, line })
    }
  }
  const timer = setInterval(look, lookMs)
  return () => {
    clearInterval(timer)
    look()
  }
}
