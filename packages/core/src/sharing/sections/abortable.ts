/** Waits that end when a signal is aborted, however long the answer takes. */

/** One wait at a time: a listener for each would cost too much for the small items of a stream. */
export class AbortableWait {
  readonly #signal: AbortSignal
  #listens = false
  #reject: ((reason: unknown) => void) | undefined
  readonly #onAbort = (): void => { this.#reject?.(this.#signal.reason) }

  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  for<T>(answer: T | PromiseLike<T>): Promise<T> {
    if (!this.#listens) this.#signal.addEventListener('abort', this.#onAbort)
    this.#listens = true
    return new Promise((resolve, reject) => {
      this.#reject = reject
      Promise.resolve(answer).then(resolve, reject)
      if (this.#signal.aborted) this.#onAbort()
    })
  }

  end(): void {
    if (this.#listens) this.#signal.removeEventListener('abort', this.#onAbort)
  }
}

/** Resolves as `work` does; rejects with the reason of `signal` where that is aborted before. */
export async function before<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  const wait = new AbortableWait(signal)
  try {
    return await wait.for(work())
  } finally {
    wait.end()
  }
}
