/** What the files of control sockets are called: an app's has its name, a process's own begins with `@` and has its pid. Pure. */

import path from 'node:path'

export const ending = '.sock'

export const isOwn = (file: string): boolean => path.basename(file).startsWith('@')
export const nameOf = (file: string): string => path.basename(file, ending)
/** `@4312-0a1b2c3d.sock` → 4312. */
export const pidOf = (file: string): number | undefined => {
  const pid = /^@(\d+)-/.exec(path.basename(file))?.[1]
  return pid === undefined ? undefined : Number(pid)
}
