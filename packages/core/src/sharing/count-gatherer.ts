/**
 * What the wing needs of a keeper: it asks the other workers what they count, and holds counts and checkpoints for the next process.
 * The link to the keeper is one by its shape; neither room imports the other.
 *
 * All of it travels as files. A descriptor stays the caller's, who may close it as soon as the call returns.
 */

import type { CountedBy } from '../protocol/keeper-messages.js'

/** What another process counts, as a file. The descriptor belongs to the one who gets it. */
export interface GatheredCount {
  /** Id of the process. */
  readonly of: string
  readonly fd: number
}

export interface CountGatherer {
  /** What all others count, those included that are gone. Undefined where the keeper is gone or silent. */
  gather(topic: string, snapshot: CountedBy, fd: number): Promise<GatheredCount[] | undefined>
  /** What this process has counted, at its end. False where the keeper does not get it. */
  tally(topic: string, snapshot: CountedBy, fd: number): boolean
  /** A section for the next process of this slot, if this one crashes. False where the keeper does not get it: it keeps the one before. */
  checkpoint(name: string, fd: number, bytes: number): boolean
}
