/**
 * What a mistyped word meant. Pure.
 *
 * By the distance of Damerau and Levenshtein: the command has no dependency that is not its own, and this is shorter than loading one.
 */

/** The nearest of `known`, if it is near enough to have been meant: the beginning of one alone, or few slips away. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const typed = word.toLowerCase()
  const initial = typed.charAt(0)
  const begun = known.filter((each) => typed.length > 1 && each.startsWith(typed))
  if (begun.length === 1) return begun[0]
  const [best] = known.map((each) => [slips(typed, each), each] as const)
    // Of two that are as near, the one that begins alike.
    .sort(([one, word], [other, another]) => one - other || Number(another.startsWith(initial)) - Number(word.startsWith(initial)))
  return best && best[0] <= Math.max(1, Math.floor(best[1].length / 3)) ? best[1] : undefined
}

/** How many characters must be added, removed, replaced, or changed with their neighbour. */
function slips(from: string, to: string): number {
  let [before, last]: [number[], number[]] = [[], Array.from({ length: to.length + 1 }, (_, index) => index)]
  for (let row = 1; row <= from.length; row++) {
    const now = [row]
    for (let column = 1; column <= to.length; column++) {
      const isSame = from[row - 1] === to[column - 1]
      const isSwapped = row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
      now.push(Math.min(
        last[column]! + 1, now[column - 1]! + 1, last[column - 1]! + (isSame ? 0 : 1), ...(isSwapped ? [before[column - 2]! + 1] : [])
      ))
    }
    [before, last] = [last, now]
  }
  return last[to.length]!
}
