/**
 * Seeded chaos: reloads, kills, pauses and bad builds in an order that a seed draws, under load; after each episode the promises are looked at.
 *
 * HANDOVER_CHAOS_SEED and HANDOVER_CHAOS_EPISODES choose the episodes: one for each seed from there on. `npm run chaos -- --seed N --episodes N` sets them.
 */

import { describe, it } from 'vitest'
import { runEpisode } from './episode.js'
import { described, planOf } from './plan.js'

const seed = Number(process.env['HANDOVER_CHAOS_SEED'] ?? 1)
const episodes = Number(process.env['HANDOVER_CHAOS_EPISODES'] ?? 12)

describe('chaos breaks no promise', () => {
  it.each(Array.from({ length: episodes }, (_, index) => planOf(seed + index)).map((plan) => [described(plan), plan] as const))('%s', { timeout: 180_000 }, async (_name, plan) => {
    await runEpisode(plan)
  })
})
