/**
 * What the command `handover` is made of, for that package alone: not a public face, and it changes without notice.
 */

export { addon, check, systemError } from './native.js'
export type { OfferedListener } from './messages.js'
export type * from './status.js'
