/**
 * Seeded chaos: reloads, kills, pauses and bad builds in an order that a seed draws, under load; after each episode the promises are
 * looked at.
 *
 * HANDOVER_CHAOS_SEED and HANDOVER_CHAOS_EPISODES choose the episodes: one for each seed from there on. `npm run chaos -- --seed N
 * --episodes N` sets them.
 */

import { describe, it } from 'vitest'
import { runEpisode } from './episode.js'
import { described, planOf } from './plan.js'

const { HANDOVER_CHAOS_SEED: first, HANDOVER_CHAOS_EPISODES: episodes } = process.env
/** Between them these have every roof, every kind of step, every way to ask for a reload, and every victim. */
const seeds = first === undefined ? [44, 300, 318, 351, 360, 374, 389, 392] : Array.from(
  { length: Number(episodes ?? 1) }, (_, index) => Number(first) + index
)

describe('chaos breaks no promise', () => {
  it.each(seeds.map((seed) => planOf(seed)).map((plan) => [described(plan), plan] as const))('%s', { timeout: 180_000 }, async (_name, plan) => {
    await runEpisode(plan)
  })
})
