// build.mjs, which first writes its pid to the descriptors WRITES, with which it was started. CLOSES: and closes them, as one that says so that it is ready.
import { closeSync, writeSync } from 'node:fs'

for (const fd of (process.env.WRITES ?? '').split(',').map(Number)) {
  try {
    writeSync(fd, `${process.pid}\n`)
  } catch (error) {
    // The first process of a program has Node's own there.
    if (error.code !== 'EINVAL') throw error
  }
  if (process.env.CLOSES) closeSync(fd)
}
await import('./build.mjs')
