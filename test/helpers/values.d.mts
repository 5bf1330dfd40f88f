import type { Arbitrary } from 'fast-check'

export const state: Arbitrary<unknown>
export const cloneable: Arbitrary<unknown>
export function samples(seed: number, count: number): unknown[]
export function assertSame(found: unknown, wanted: unknown, place?: string): void
