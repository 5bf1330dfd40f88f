/** Device and inode of a file: by these a process knows whether the file of a socket was removed or replaced. */

import { unguarded } from './path-guard.js'

export const idOf = ({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): string => `${dev}:${ino}`

/** Of a path; a link is not followed. Undefined where there is no file, or where it cannot be seen. */
export function fileId(file: string): string | undefined {
  try {
    const found = unguarded.lstatSync(file, { throwIfNoEntry: false, bigint: true })
    return found && idOf(found)
  } catch {
    return undefined
  }
}
