/**
 * The second socket of a channel: descriptors in batches, each with one byte, sent before the message that counts them.
 *
 * If not all descriptors of a message arrive, the others are closed and counted; a message that can use the first few keeps them.
 */

import { closeSync } from 'node:fs'
import { addon, maxFdsPerMessage, systemError } from '../platform/native.js'
import type { Vocabulary } from './json-lines.js'

/** A message and its descriptors, which its receiver owns. */
export interface Received<M> {
  readonly message: M
  readonly fds: readonly number[]
  /** Absent: all have arrived. `truncated`: the kernel dropped some, since this process may open no more. */
  readonly missing?: { readonly counted: number; readonly arrived: number; readonly truncated: boolean }
}

export const closeAll = (fds: readonly number[]): void => { for (const fd of fds) closeSync(fd) }

/** Reads only as many batches as the message needs at least: later ones belong to the next. `inPieces`: in any number of batches. */
export function takeDescriptors<M extends { readonly type: string }>(
  socket: number | undefined, message: M, { descriptors, takesSome }: Vocabulary<M>, inPieces = false
): Received<M> {
  const counted = descriptors(message)
  const fds: number[] = []
  let truncated = false
  for (let at = 0; inPieces ? fds.length < counted && !truncated : at < counted; at += maxFdsPerMessage) {
    const batch = socket === undefined ? -1 : addon().receiveMessage(socket, new Uint8Array(1))
    if (typeof batch === 'number' || batch.bytes === 0) break
    fds.push(...batch.fds)
    truncated ||= batch.truncated
  }
  const arrived = fds.length
  if (arrived === counted) return { message, fds }
  closeAll(fds.splice(takesSome(message) ? counted : 0))
  return { message, fds, missing: { counted, arrived, truncated } }
}

/** Sends the first 252 at most. Returns how many; throws the error of the system. */
export function sendBatch(socket: number, fds: readonly number[]): number {
  const batch = fds.slice(0, maxFdsPerMessage)
  const sent = addon().sendMessage(socket, new Uint8Array(1), batch)
  if (sent < 0) throw systemError(sent, 'sendmsg')
  return batch.length
}

/** For the debug log: the type, and how many descriptors. */
export function described({ message: { type }, fds, missing }: Received<{ readonly type: string }>): string {
  if (missing) return `${type}, ${missing.arrived} of ${missing.counted} descriptors`
  return fds.length === 0 ? type : `${type}, ${fds.length} ${fds.length === 1 ? 'descriptor' : 'descriptors'}`
}
