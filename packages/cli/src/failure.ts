/**
 * Why the command ends without having done what it was asked: what happened, what became of it, what to do, and the exit status. Pure, and
 * without the core: a wrong word must not load the addon.
 */

/** Each is a sentence without its full stop. One that ends in `.`, `:` or `?` is taken as it is. */
export interface FailureParts {
  readonly what: string
  readonly serving?: string | undefined
  readonly todo?: string | undefined
}

interface FailureContext {
  /** 1: it could not be done. 2: it was asked wrongly. */
  readonly status?: 1 | 2
  /** The word after `handover`, where the message names it. */
  readonly command?: string
  /** Of the error of the process that was asked. */
  readonly code?: string
}

const sentence = (text: string): string => (/[.:?]$/.test(text) ? text : `${text}.`)

export class Failure extends Error {
  readonly status: 1 | 2
  /** What `--json` prints. */
  readonly json: FailureParts & { readonly code?: string; readonly message: string }

  constructor(parts: FailureParts, { status = 1, command, code }: FailureContext = {}) {
    const { what, serving, todo } = parts
    const text = [what, serving, todo].filter((part) => part !== undefined && part !== '').map((part) => sentence(part!)).join(' ')
    super(`handover${command === undefined ? '' : ` ${command}`}: ${text}${code === undefined ? '' : ` (${code})`}`)
    this.status = status
    this.json = { ...(code !== undefined && { code }), message: this.message, what, ...(serving && { serving }), ...(todo && { todo }) }
  }
}

/** Of `handover run`. */
export const notStarted = (what: string, todo: string): Failure =>
  new Failure({ what, serving: 'Nothing was started', todo }, { command: 'run' })
