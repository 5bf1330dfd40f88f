/**
 * The built-in topic: how many requests each process of the service has begun. Every process counts it, whatever the program shares. It is
 * the only topic whose files a keeper reads.
 */

import { readTextFile } from '../platform/memory-file.js'
import { decodeState } from '../protocol/value-codec.js'
import { countsOf, once, type Count } from './aggregates/count-once.js'

export const serviceTopic = 'service'

export interface ServiceCounts {
  readonly requests: number
}

/** The requests in all of these snapshots, each process counted once. The descriptors stay the caller's. */
export const requestsIn = (files: readonly number[]): number =>
  once(files.flatMap(countsIn)).reduce((sum, { value }) => sum + ((value as Partial<ServiceCounts> | null)?.requests ?? 0), 0)

/** Another process wrote the file. If it cannot be read, it counts nothing, and the keeper shows the rest. */
function countsIn(fd: number): readonly Count[] {
  try {
    return countsOf({ id: '', value: decodeState(readTextFile(fd), 'what a process counts') })
  } catch {
    return []
  }
}
