/**
 * Work that can wait takes at most 1 ms of a turn of the event loop, so that requests are answered between. With 5 ms, clients waited three
 * times as long while 10,000 connections moved, which took no less time (`npm run bench -- move`). A budget begins when it is created. It
 * measures real time, not that of a host.
 */

const turnMs = 1

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
