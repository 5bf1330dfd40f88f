/**
 * What stands in the place of a server's listening handle when Handover has closed that one: for the program the server listens until the
 * program closes it. So its `close()` succeeds once and calls back, `listening` and `address()` answer as before, and the process lives as
 * long as a listener keeps it alive.
 */

/** What it takes over from the handle that was closed. */
interface FormerHandle {
  getsockname?(out: object): number
  hasRef?(): boolean
}

export class ClosedListener {
  /** There is none. */
  readonly fd = -1
  /** Pipes have none: `server.address()` looks elsewhere then. */
  readonly getsockname?: (out: object) => number
  readonly #alive = setInterval(() => undefined, 2 ** 31 - 1)

  /** `before`: still open. */
  constructor(before: FormerHandle) {
    if (typeof before.getsockname === 'function') {
      const address = {}
      const answer = before.getsockname(address)
      this.getsockname = (out) => {
        Object.assign(out, address)
        return answer
      }
    }
    if (before.hasRef?.() === false) this.unref()
  }

  listen(): number {
    return 0
  }

  ref(): void {
    this.#alive.ref()
  }

  unref(): void {
    this.#alive.unref()
  }

  hasRef(): boolean {
    return this.#alive.hasRef()
  }

  close(): void {
    clearInterval(this.#alive)
  }
}
