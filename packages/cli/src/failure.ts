/** Why the command ends without having done what it was asked: one line for people, and the exit status. Pure. */

export class Failure extends Error {
  /** 1: it could not be done. 2: it was asked wrongly. */
  readonly status: 1 | 2

  constructor(message: string, status: 1 | 2 = 1) {
    super(message)
    this.status = status
  }
}
