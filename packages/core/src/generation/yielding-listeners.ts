/**
 * Listeners for signals that do nothing beside ours. The package signal-exit, which execa, proper-lockfile and many others use, listens
 * for every signal that ends a process, and acts where nobody but itself listens. Its copies and versions count themselves where all of
 * them find that: `process.__signal_exit_emitter__` (2, 3) and a global symbol (4).
 */

interface Counting {
  readonly count?: unknown
}

/** How many listeners for each signal are of this kind. */
export function yieldingListeners(): number {
  const { __signal_exit_emitter__: before } = process as { readonly __signal_exit_emitter__?: Counting }
  const now = (globalThis as Readonly<Record<symbol, Counting | undefined>>)[Symbol.for('signal-exit emitter')]
  return [before, now].reduce((sum, found) => sum + (typeof found?.count === 'number' ? found.count : 0), 0)
}
