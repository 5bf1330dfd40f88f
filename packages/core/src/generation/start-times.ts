/**
 * When this process reached each step of its start, for `handover reload --timing`. It costs nothing once the first request is answered.
 *
 * An entry of the package imports it before all else, so that it knows when that began to load.
 */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { performance } from 'node:perf_hooks'
import type { StartReport } from '../protocol/control-messages.js'
import type { LifecycleState } from '../protocol/lifecycle.js'

const began = performance.now()
let loaded = began
const answers = 'http.server.response.finish'

/** The package is loaded, and the program goes on. */
export function coreLoaded(): void {
  loaded = performance.now()
}

export class StartTimes {
  readonly #reached = new Map<LifecycleState | 'answered', number>()

  moved(to: LifecycleState): void {
    this.#reach(to)
    if (to === 'serving' && !this.#reached.has('answered')) subscribe(answers, this.#answered)
  }

  readonly #answered = (): void => {
    this.#reach('answered')
    unsubscribe(answers, this.#answered)
  }

  #reach(step: LifecycleState | 'answered'): void {
    if (!this.#reached.has(step)) this.#reached.set(step, performance.now())
  }

  get report(): StartReport {
    const at = (step: LifecycleState | 'answered'): number | undefined => this.#reached.get(step)
    const all = {
      at: performance.timeOrigin, node: performance.nodeTiming.bootstrapComplete, load: began, loaded,
      hello: at('taking'), offered: at('preparing'), ready: at('ready'), serving: at('serving'), answered: at('answered')
    }
    const known = Object.entries(all).filter((entry): entry is [string, number] => entry[1] !== undefined)
    return Object.fromEntries(known.map(([step, ms]) => [step, Math.round(ms * 10) / 10])) as unknown as StartReport
  }
}
