/** The cut at the deadline of a drain: some connections in each turn of the loop, in which the others are still answered. */

import type net from 'node:net'

/** How many are cut in a turn at least and at most: 2 to 8 ms' worth. */
const [leastCut, mostCut] = [64, 256]
/** More in a turn where it would last longer, since the deadline has passed. */
const cutMs = 1_000

/** `left`: what is still there; `cut` answers false where the rest stays; `done`: none is left. */
export function cutInTurns(left: () => net.Socket[], cut: (sockets: readonly net.Socket[]) => boolean, done: () => void): void {
  const since = performance.now()
  const cutSome = (sockets: readonly net.Socket[], turn: number): void => {
    const now = performance.now()
    const turnsLeft = Math.max(0, since + cutMs - now) * turn / (now - since)
    const count = turn === 0 ? leastCut : Math.min(mostCut, Math.max(leastCut, Math.ceil(sockets.length / turnsLeft)))
    if (!cut(sockets.slice(0, count))) return
    const rest = sockets.length > count ? sockets.slice(count) : left()
    if (rest.length > 0) setImmediate(() => { cutSome(rest, turn + 1) })
    else done()
  }
  cutSome(left(), 0)
}
