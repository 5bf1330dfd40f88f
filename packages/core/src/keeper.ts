/**
 * What the command `handover` is made of, for that package alone: not a public face, and it changes without notice.
 */

export { connectControl, controlDirectory, controlPath, ControlServer, findControlDirectory, findOrBecome, listenAt, type Client, type ControlSide } from './control.js'
export { HandoverError, type ErrorCode } from './errors.js'
export type { Peer } from './messages.js'
export type { Report } from './report.js'
export type { StateName } from './states.js'
export type * from './status.js'
