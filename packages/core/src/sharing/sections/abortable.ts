/** Limits of time, and waits that end when a signal is aborted, however long the answer takes. */

/** What is asked of a signal here. */
export interface Abortable extends Pick<AbortSignal, 'aborted' | 'reason' | 'throwIfAborted'> {
  addEventListener(type: 'abort', listener: () => void): void
  removeEventListener(type: 'abort', listener: () => void): void
}

/**
 * Aborted when the time is over, and with another signal. It has a signal and a timer of its own from when somebody listens to it, or asks
 * for the signal: making them takes longer than to save or restore a small section, which is done at once.
 */
export class TimeLimit implements Abortable {
  readonly #until: number
  readonly #late: string
  readonly #outer: AbortSignal | undefined
  #own: AbortController | undefined
  #timer: NodeJS.Timeout | undefined
  #isOver = false
  #giveUp: (() => void) | undefined

  /** `late`: what is said when the time is over. */
  constructor(ms: number, late: string, outer?: AbortSignal) {
    this.#until = performance.now() + ms
    this.#late = late
    this.#outer = outer
  }

  get signal(): AbortSignal {
    return this.start()
  }

  /** Makes them. */
  start(): AbortSignal {
    if (this.#own) return this.#own.signal
    const own = this.#own = new AbortController()
    const giveUp = this.#giveUp = () => { own.abort(this.#outer?.reason) }
    if (this.#outer?.aborted) giveUp()
    // Who asks after the end gets one that is never aborted.
    if (this.#isOver) return own.signal
    this.#timer = setTimeout(() => { own.abort(new Error(this.#late)) }, Math.max(1, this.#until - performance.now()))
    // AbortSignal.any() would leave something behind in a signal that lives on, at each checkpoint.
    this.#outer?.addEventListener('abort', giveUp)
    return own.signal
  }

  get #nearest(): AbortSignal | undefined {
    return this.#own?.signal ?? this.#outer
  }

  get aborted(): boolean {
    return this.#nearest?.aborted ?? false
  }

  get reason(): unknown {
    return this.#nearest?.reason as unknown
  }

  throwIfAborted(): void {
    this.#nearest?.throwIfAborted()
  }

  addEventListener(type: 'abort', listener: () => void): void {
    this.signal.addEventListener(type, listener)
  }

  removeEventListener(type: 'abort', listener: () => void): void {
    this.#own?.signal.removeEventListener(type, listener)
  }

  end(): void {
    this.#isOver = true
    clearTimeout(this.#timer)
    if (this.#giveUp) this.#outer?.removeEventListener('abort', this.#giveUp)
  }
}

/** One wait at a time: a listener for each would cost too much for the small items of a stream. */
export class AbortableWait {
  readonly #signal: Abortable
  #listens = false
  #reject: ((reason: unknown) => void) | undefined
  readonly #onAbort = (): void => { this.#reject?.(this.#signal.reason) }

  constructor(signal: Abortable) {
    this.#signal = signal
  }

  /** From now on, for those who look at the signal between waits: a TimeLimit begins to count. */
  listen(): void {
    if (!this.#listens) this.#signal.addEventListener('abort', this.#onAbort)
    this.#listens = true
  }

  for<T>(answer: T | PromiseLike<T>): Promise<T> {
    this.listen()
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
export async function before<T>(signal: Abortable, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  const wait = new AbortableWait(signal)
  try {
    return await wait.for(work())
  } finally {
    wait.end()
  }
}
