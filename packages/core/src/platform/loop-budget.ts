/**
 * Work that can wait takes at most 5 ms of a turn of the event loop, so that requests are answered between. A budget begins when it is
 * created. It measures real time, not that of a host.
 */

const turnMs = 5

export class LoopBudget {
  #until = performance.now() + turnMs

  get isSpent(): boolean {
    return performance.now() >= this.#until
  }

  /** Undefined while there is time left; else it resolves in a later turn of the event loop, for which there is a new budget. */
  nextTurn(): Promise<void> | undefined {
    if (!this.isSpent) return undefined
    return new Promise((resolve) => {
      setImmediate(() => {
        this.#until = performance.now() + turnMs
        resolve()
      })
    })
  }
}
