/**
 * Replaces the listening handle of a server when Handover has closed it: for the program the server listens until the program closes it.
 * So `close()` succeeds once and calls back, `listening` and `address()` answer as before, and the process is kept alive as by a listener.
 */

/** The handle that was closed. */
interface FormerHandle {
  getsockname?(out: object): number
  hasRef?(): boolean
}

export class ClosedListener {
  readonly fd = -1
  /** Pipes have none: there `server.address()` reads another field. */
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

  listen(): number { return 0 }

  ref(): void { this.#alive.ref() }

  unref(): void { this.#alive.unref() }

  hasRef(): boolean { return this.#alive.hasRef() }

  close(): void { clearInterval(this.#alive) }
}
