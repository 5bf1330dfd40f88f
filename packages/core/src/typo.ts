/** Whether a word is a mistyped form of another. Pure. */

/** Whether `written` is `meant` but for one character, two neighbours that changed places, or capitals; and not `meant` itself. */
export function isTypo(written: string, meant: string): boolean {
  if (written === meant) return false
  const [a, b] = [written.toLowerCase(), meant.toLowerCase()]
  let same = 0
  while (same < a.length && a[same] === b[same]) same++
  const swapped = a.length > same + 1
    && a.slice(same, same + 2) === b.charAt(same + 1) + b.charAt(same)
    && a.slice(same + 2) === b.slice(same + 2)
  return a === b || swapped || [[1, 0], [0, 1], [1, 1]].some(([skipA, skipB]) => a.slice(same + skipA!) === b.slice(same + skipB!))
}
