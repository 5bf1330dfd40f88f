/** How old something is that may have begun in another process. The clock of the machine may be set meanwhile, so it is asked only once. */

export class Age {
  readonly #thenMs: number
  readonly #since = performance.now()

  /** `thenMs`: how old it is now. */
  constructor(thenMs = 0) {
    this.#thenMs = Math.max(0, thenMs)
  }

  get ms(): number {
    return Math.round(this.#thenMs + performance.now() - this.#since)
  }
}
