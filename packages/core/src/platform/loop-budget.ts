/**
 * How long one turn of the event loop may go on with work that could wait: 5 ms, after which requests have their turn.
 *
 * A budget begins when it is made. Work that is done in one go asks `isSpent`; work that can wait in between awaits `pause()`,
 * which begins a new budget. It measures real time, and decides nothing: it takes no clock of a host.
 */

const turnMs = 5

export class LoopBudget {
  #until = performance.now() + turnMs

  get isSpent(): boolean {
    return performance.now() >= this.#until
  }

  /** Waits for the next turn of the loop and begins a new budget; undefined where this one is not spent, so that no wait is for nothing. */
  pause(): Promise<void> | undefined {
    if (!this.isSpent) return undefined
    return new Promise((resolve) => {
      setImmediate(() => {
        this.#until = performance.now() + turnMs
        resolve()
      })
    })
  }
}
