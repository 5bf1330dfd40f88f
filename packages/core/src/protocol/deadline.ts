/** A point in time, never a duration, so that several waits can share it. */
export interface Deadline {
  /** As performance.now(). */
  readonly at: number
  readonly ms: number
}

export const deadlineIn = (ms: number): Deadline => ({ at: performance.now() + ms, ms })
export const left = (deadline: Deadline): number => Math.max(0, deadline.at - performance.now())

/** Thrown by `receive` where the deadline passed; the role gives it its meaning. */
export class DeadlinePassed extends Error {}
