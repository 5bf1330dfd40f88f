/**
 * What the command `handover` is made of, for that package alone: not a public face, and it changes without notice.
 */

export type * from './status.js'
