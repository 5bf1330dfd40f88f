/**
 * How long one turn of the event loop may go on with work that could wait: 5 ms, after which requests have their turn.
 *
 * A budget begins when it is made. It measures real time, and decides nothing: it takes no clock of a host.
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
