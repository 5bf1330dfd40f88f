/**
 * The one error class and the table of its codes.
 *
 * A message has three parts: what happened, who is serving now, what to do. The table holds the general form of each for
 * docs/errors.md (a test compares the two); the place that throws fills in processes and numbers. Pure: imports nothing.
 */

export const errorTable = {
  HANDOVER_OPTION: ['An option or a HANDOVER_* variable has a value that cannot be used, or two places disagree.', 'Correct the value named in the message.'],
  HANDOVER_UNAVAILABLE: ['This process cannot be reloaded: no addon, PID 1, a cluster worker, a worker thread, a child process of the program, a keeper that is gone, another runtime, or HANDOVER=off.', 'The message names the reason. The server listens and drains as usual.'],
  HANDOVER_NOT_SERVING: ['A reload was asked of a process that is not serving (not yet, or not any more).', 'Ask the process named in the message.'],
  HANDOVER_RELOAD_RUNNING: ['A reload was asked while another one runs.', 'Wait for its report, then ask again.'],
  HANDOVER_SPAWN: ['The successor could not be started at all.', 'Check the Node binary, the script and the working directory named in the message.'],
  HANDOVER_SUCCESSOR_EXIT: ['The successor ended before it was ready.', 'Read its last stderr lines in the message, repair the build, reload again.'],
  HANDOVER_SUCCESSOR_TIMEOUT: ['The successor was not ready within readyTimeout, and was killed.', 'Raise readyTimeout, or call ready() when readyWhen is manual, or see what it wrote to stderr.'],
  HANDOVER_SUCCESSOR_FAILED: ['The successor said that it cannot serve, for instance because a listen() failed.', 'The message has its reason. Repair it, reload again.'],
  HANDOVER_STOPPED: ['A stop was asked while the reload ran; the reload was given up.', 'Nothing: the process drains and ends.'],
  HANDOVER_PROTOCOL_VERSION: ['The two processes speak protocol versions more than one apart.', 'Stop and start once, or go through a version in between.'],
  HANDOVER_PROTOCOL: ['A message was not what the protocol allows at this point.', 'Look for another program on the channel; the message shows what was found and expected.'],
  HANDOVER_LISTENER_MISMATCH: ['A received descriptor is not the listener that the offer says.', 'Nothing was taken over. Report it: this is a defect or an intruder.'],
  HANDOVER_PREDECESSOR_SILENT: ['The predecessor did not answer in time.', 'See whether its event loop is blocked. Under `handover run` a reload replaces it; without a keeper, end it and start the program again.'],
  HANDOVER_REFUSED: ['The predecessor refused to hand over (a reload already runs, or it is draining).', 'The message has its reason. Try again afterwards.'],
  HANDOVER_WITHDRAWN: ['The predecessor took its offer back, and goes on serving.', 'The message has its reason; this process must end.'],
  HANDOVER_UNDONE: ['The successor had taken over, and died, hung for 3 s or was recalled by its keeper within the undo window.', 'The predecessor serves again. Repair the build, reload again.'],
  HANDOVER_STATE: ['A state that should go to the next process cannot be saved, sent or restored: it holds a function or a socket, is too large, takes too long, has a schema that the new version does not read, or save() or restore() threw.', 'The message has the section and the reason: the path to it, its size. Repair it; or mark the section optional in the new version; or reload with --without-state.'],
  HANDOVER_CONTROL_SOCKET: ['`HANDOVER_DIR` is a relative path, or cannot be used by the command that asks.', 'The message names the path, and what its owner, mode or length must be.'],
  HANDOVER_PEER_UID: ['The process at the other end belongs to another user.', 'Run both as the same user (root may talk to anyone).'],
  HANDOVER_FD_ARGUMENT: ['A call of @handover/core/fd was given something that it cannot use.', 'The message says what was found and what is expected.'],
  HANDOVER_FD_LIMIT: ['More than 252 descriptors in one message.', 'Send them in batches of at most 252.'],
  HANDOVER_FD_TRUNCATED: ['The kernel dropped descriptors on arrival (MSG_CTRUNC), mostly because of RLIMIT_NOFILE.', 'All that arrived were closed. Raise the limit or receive fewer.'],
  HANDOVER_FD_CLOSED: ['The peer closed the connection.', 'Nothing was sent or received; connect again.'],
  HANDOVER_FD_TIMEOUT: ['The peer did not send or take anything in time.', 'Nothing was lost; try again, or give it longer.'],
  HANDOVER_NOT_A_SOCKET: ['A descriptor is not the socket that was expected.', 'It was closed. The message says what it is.']
} as const satisfies Record<`HANDOVER_${string}`, readonly [whatHappened: string, whatToDo: string]>

/** The codes of HandoverError; docs/errors.md says for each what happened and what to do. */
export type ErrorCode = keyof typeof errorTable

export const isErrorCode = (text: string): text is ErrorCode => Object.hasOwn(errorTable, text)

/** Of any thrown value, for a log. */
export const textOf = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))

/** For a text from anywhere, which may end in a full stop, where our own text goes on. */
export const withoutStop = (text: string): string => text.replace(/[.\s]+$/, '')

export type Role = 'predecessor' | 'successor'

/** The parts of a message, each a sentence without its full stop. A text that ends in `.`, `?`, `!` or `:` is taken as it is. */
export interface ErrorParts {
  /** What happened. */
  readonly what: string
  /** Who serves now, or what became of what was asked for. */
  readonly serving?: string
  /** What to do. */
  readonly todo?: string
  /** What follows the text, such as the last lines of a successor. */
  readonly appendix?: string
  /** Each part stands on a line of its own. */
  readonly onLines?: boolean
  /** The whole text, where it was made before: in another process, or for the error that this one copies. */
  readonly text?: string
}

const sentence = (text: string): string => (/[.?!:]$/.test(text) ? text : `${text}.`)

/** The parts as one text. */
function messageOf({ what, serving, todo, appendix, onLines = false, text: made }: ErrorParts): string {
  if (made !== undefined) return made
  const parts = [what, serving, todo].filter((part) => part !== undefined && part !== '').map((part) => sentence(part!))
  const text = parts.join(onLines ? '\n  ' : ' ')
  return appendix === undefined || appendix === '' ? text : `${text} ${appendix}`
}

export interface ErrorContext {
  readonly role?: Role
  /** The state of the process that throws. */
  readonly state?: string
  /** The generation of the process that throws. */
  readonly generation?: number
  readonly cause?: unknown
  /** The last lines that a failed successor wrote to stderr. */
  readonly stderr?: string
}

/** No build ends itself by one of these. */
const sentByOthers: readonly unknown[] = ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGKILL']
/** What Node, V8 and libuv write where the system gives them no thread, process, memory or descriptor. */
const shortage = /_thread_create\b|pthread_create\b|\bspawn \S+ EAGAIN|out of memory|Cannot allocate memory|\b(?:ENOMEM|EMFILE|ENFILE)\b/

/** What to do about a new version that has ended, by what it wrote last, and by the signal that ended it, where that was not ours. */
export function repairTodo(stderr: string, signal?: string | null): string {
  if (sentByOthers.includes(signal)) {
    return `Find out what sent ${signal}${signal === 'SIGKILL' ? ' (the kernel does where memory is short)' : ''}, and reload again`
  }
  // libuv aborts without a word where it gets no thread.
  if (shortage.test(stderr) || (signal === 'SIGABRT' && stderr === '')) {
    return 'Check the limits of this process and of its container (ulimit -u, ulimit -n, memory), or repair the build; then reload again'
  }
  const [, address] = /\b(?:listen|bind) EADDRINUSE(?:: address already in use)?:? (\S+)/.exec(stderr) ?? []
  if (address === undefined) return 'Repair the build and reload again'
  return `Find out what has ${address}, and reload again. If it is the old version, it listens there where Handover hands nothing over: in a worker thread, ` +
    'in a process that it started, by a server that listened before Handover was loaded, or by one that handover() was not given'
}

/** On the errors of every copy of this package. */
const brand = Symbol.for('@handover/core HandoverError')

/**
 * Every error that Handover throws. `code` is a key of the table above and stable; the text is for people. A process may load this package
 * twice, and shares one `handover` object: `instanceof HandoverError` also holds for the errors of the other copy.
 */
export class HandoverError extends Error {
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (this !== HandoverError) return Function.prototype[Symbol.hasInstance].call(this, value)
    return typeof value === 'object' && value !== null && brand in value
  }

  /** `HandoverError [CODE]`. */
  override name: string
  /** Stable: for programs. */
  readonly code: ErrorCode
  // Set where they are known: what is undefined would be printed, too.
  /** The side of a handover on which it was thrown. */
  declare readonly role?: Role
  /** The state of the process that threw it. */
  declare readonly state?: string
  /** The generation of the process that threw it. */
  declare readonly generation?: number
  /** The last lines that a failed successor wrote to stderr. */
  declare readonly stderr?: string
  /** What happened; the whole message where its parts are not known. */
  readonly what: string
  /** Who serves now, or what became of what was asked for. */
  declare readonly serving?: string
  /** What to do. */
  declare readonly todo?: string

  /** `text`: the parts of the message, or a message that another process has made of them. */
  constructor(code: ErrorCode, text: ErrorParts | string, context: ErrorContext = {}) {
    const { what, serving, todo } = typeof text === 'string' ? { what: text } : text
    super(typeof text === 'string' ? text : messageOf(text), 'cause' in context ? { cause: context.cause } : undefined)
    this.code = code
    this.what = what
    const { cause: _, ...known } = context
    Object.assign(this, known, serving !== undefined && { serving }, todo !== undefined && { todo })
    // The stack begins with the code, as in Node's own errors; the name stays plain.
    this.name = `HandoverError [${code}]`
    Error.captureStackTrace(this, HandoverError)
    // V8 writes its first line when it is first read.
    Reflect.get(this, 'stack')
    this.name = 'HandoverError'
  }

  /** `HandoverError [HANDOVER_…]: message`, as Node prints its own errors with codes. */
  override toString(): string {
    return `${this.name} [${this.code}]: ${this.message}`
  }
}

Object.defineProperty(HandoverError.prototype, brand, { value: true })

/** For an argument or option that cannot be used. */
export const optionError = (what: string, todo: string, serving = 'Nothing was changed'): HandoverError =>
  new HandoverError('HANDOVER_OPTION', { what, serving, todo })

/** The parts of an error with its text: for a copy, or for another process. */
export const partsOf = ({ message, what, serving, todo }: HandoverError): ErrorParts & { readonly text: string } =>
  ({ text: message, what, ...(serving !== undefined && { serving }), ...(todo !== undefined && { todo }) })

/** The longest reason that is sent to another process: a line that is longer than the channel allows would end the channel. */
const longestReason = 1_000

/** The text of an error for another process. */
export function reasonOf(error: unknown): string {
  const reason = error instanceof Error ? error.message : String(error)
  return reason.length > longestReason ? `${reason.slice(0, longestReason)} …` : reason
}
