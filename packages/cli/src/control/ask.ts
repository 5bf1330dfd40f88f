/**
 * One request to one control socket, and its answers, each checked. Nothing is sent before the process that listens there is known to
 * belong to this user or to root.
 */

import { on } from 'node:events'
import type net from 'node:net'
import {
  connectControl, deadlineIn, LineReader, parseControlAnswer, withDeadline, type AppStatus, type ControlAnswer, type ControlRequest
} from '@handover/core/internal'
import { Failure } from '../failure.js'

type AnswerMs = (answersSoFar: number) => number | undefined

const longestLine = 4_194_304
const statusMs = 3_000
const serving = 'Nothing was asked'
const seeLoop = 'See whether its event loop is blocked'

/** No process listens at this file: it is left from one that was killed. */
export class NoListener extends Failure {}

/** This process cannot connect at all (a filter of address families, for one): nothing is known of who listens there. */
export class NoWay extends Failure {}

/** The answer did not come in time. What was asked may still be done. */
export class NoAnswer extends Failure {}

/** Asks for the status of the app. Undefined if the answer is something else. Throws as `ask` does. */
export async function statusOf(file: string): Promise<AppStatus | undefined> {
  const request: ControlRequest = { type: 'request', verb: 'status' }
  for await (const answer of ask(file, request, () => statusMs)) if (answer.type === 'status') return answer.app
  return undefined
}

/**
 * Sends the request and yields the answers, until the connection closes. `answerMs`: how long each answer may take; undefined: without a
 * limit. Throws NoListener, NoAnswer, or a Failure for a socket of another user and for an invalid answer.
 */
export async function* ask(file: string, request: ControlRequest, answerMs?: AnswerMs): AsyncGenerator<ControlAnswer> {
  const socket = connect(file)
  try {
    socket.write(`${JSON.stringify(request)}\n`)
    yield* answers(socket, file, answerMs)
  } finally {
    socket.destroy()
  }
}

function connect(file: string): net.Socket {
  let socket: net.Socket | undefined
  try {
    socket = connectControl(file)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') throw new Failure({ what: `${file} belongs to another user`, serving, todo: 'Run this command as that user, or as root' })
    if (code === 'EAGAIN') throw new NoAnswer({ what: `the process that listens at ${file} does not answer: so many wait already`, todo: seeLoop })
    const why = code === 'EAFNOSUPPORT' ? ' (RestrictAddressFamilies= of systemd must allow AF_UNIX)' : ''
    // Longer than the address of a socket can be.
    if (code !== 'ENAMETOOLONG') throw new NoWay({ what: `${file} cannot be asked: ${message}${why}` })
  }
  if (!socket) throw new NoListener({ what: `no process listens at ${file} any more`, serving, todo: 'See handover status' })
  return socket
}

async function* answers(socket: net.Socket, file: string, answerMs: AnswerMs | undefined): AsyncGenerator<ControlAnswer> {
  const lines = new LineReader(longestLine)
  const chunks = on(socket, 'data', { close: ['end', 'close'] }) as AsyncIterator<[Buffer], undefined>
  // A process that ends with something unread resets the connection. What it sent before comes first.
  const over = { done: true, value: undefined } as const
  socket.on('error', () => undefined)
  for (let told = 0; ; told++) {
    const ms = answerMs?.(told)
    const deadline = ms === undefined ? undefined : deadlineIn(ms)
    let line: string | undefined
    while ((line = nextOf(lines, file)) === undefined) {
      const chunk = await withDeadline(chunks.next().catch(() => over), deadline)
      if (!chunk) throw new NoAnswer({ what: `the process that listens at ${file} did not answer within ${Math.round(ms ?? 0)} ms`, todo: seeLoop })
      if (chunk.done === true) return
      lines.add(chunk.value[0])
    }
    yield parse(line, file)
  }
}

function nextOf(lines: LineReader, file: string): string | undefined {
  try {
    return lines.next()
  } catch {
    throw new Failure({ what: `what listens at ${file} says more than ${longestLine} characters without an end`, todo: 'It is no process of Handover' })
  }
}

function parse(line: string, file: string): ControlAnswer {
  try {
    return parseControlAnswer(line)
  } catch {
    const what = `the answer from ${file} is ${JSON.stringify(line.slice(0, 80))}, expected a status, a reload or a refusal`
    throw new Failure({ what, todo: 'It is no process of Handover, or of a version too far away' })
  }
}
