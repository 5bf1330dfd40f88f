/**
 * One request to one control socket, and its answers, each checked. Nothing is said before it is known that the process that listens there
 * belongs to this user or to root.
 */

import type net from 'node:net'
import { connectControl, deadlineIn, LineReader, parseControlAnswer, withDeadline, type ControlAnswer, type ControlRequest } from '@handover/core/internal'
import { Failure } from '../failure.js'

type AnswerMs = (answersSoFar: number) => number | undefined

const longestLine = 4_194_304
const serving = 'Nothing was asked'
const seeLoop = 'See whether its event loop is blocked'

/** Nobody listens at this file: a process that was killed left it behind. */
export class NobodyListens extends Failure {}

/** Its answer was awaited for too long; it may still come to be done. */
export class Silent extends Failure {}

/**
 * Sends the request and yields the answers, until the connection closes. `answerMs`: how long each answer may take; undefined: for ever.
 * Throws NobodyListens, Silent, and a Failure for a socket of another user and for an answer that is none.
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
    if (code === 'EAGAIN') throw new Silent({ what: `the process that listens at ${file} does not answer: so many wait already`, todo: seeLoop })
    throw new Failure({ what: `${file} cannot be asked: ${message}` })
  }
  if (!socket) throw new NobodyListens({ what: `nobody listens at ${file} any more`, serving, todo: 'See handover status' })
  return socket
}

async function* answers(socket: net.Socket, file: string, answerMs: AnswerMs | undefined): AsyncGenerator<ControlAnswer> {
  const lines = new LineReader(longestLine)
  const over = new AbortController()
  let wake = (): void => undefined
  const end = (): void => {
    over.abort()
    wake()
  }
  // A process that ends with something unread resets the connection: what it said before has arrived all the same.
  socket.on('error', end).on('end', end).on('close', end)
  socket.on('data', (chunk: Buffer) => {
    lines.add(chunk)
    wake()
  })
  for (let told = 0; ; told++) {
    const ms = answerMs?.(told)
    const deadline = ms === undefined ? undefined : deadlineIn(ms)
    for (;;) {
      const line = nextOf(lines, file)
      if (line !== undefined) {
        yield parse(line, file)
        break
      }
      if (over.signal.aborted) return
      const woken = new Promise<true>((resolve) => { wake = () => { resolve(true) } })
      if (await withDeadline(woken, deadline) === undefined) {
        throw new Silent({ what: `the process that listens at ${file} did not answer within ${Math.round(ms ?? 0)} ms`, todo: seeLoop })
      }
    }
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
