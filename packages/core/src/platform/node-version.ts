/**
 * Whether this Node is too old at all. The first releases of a line lack what an older line got later: 22.0 to 22.2, and all of 21, have
 * neither `process.getBuiltinModule` nor the channel on which Node publishes each listen(). No other file may be needed to say so.
 */

/** What to say instead of anything else; undefined: it is new enough. */
export function tooOld(): string | undefined {
  const { getBuiltinModule } = process as Partial<typeof process>
  if (typeof getBuiltinModule === 'function') return undefined
  return `Handover needs Node 20.19, or 22.12 or later; this is ${process.version}. Start the program with a newer Node.`
}
