// Numbers from a seed (mulberry32), so that a failure of the fuzz can be repeated with the requests and the borders that it had.
export class Random {
  #state

  constructor(seed) {
    this.#state = seed >>> 0
  }

  /** From 0 up to and without 1. */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number, both ends included. */
  between(least, most) {
    return least + Math.floor(this.next() * (most - least + 1))
  }

  chance(probability) {
    return this.next() < probability
  }

  /** `between`, where small numbers are as likely as large ones. */
  size(most) {
    return Math.floor((most + 1) ** this.next()) - 1
  }
}
