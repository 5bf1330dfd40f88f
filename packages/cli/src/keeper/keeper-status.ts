/** The status of an app under a keeper: what the keeper knows, and what each worker answers in time. */

import { accepts, isLeaving, type AppStatus, type LifecycleState, type ProcessStatus } from '@handover/core/internal'
import { newestGeneration } from '../service.js'
import type { Keeper } from './keeper.js'
import type { Worker } from './worker.js'

export async function statusOfApp(keeper: Keeper): Promise<AppStatus> {
  const { options: { name, version }, members, restarts } = keeper
  const counting = keeper.counts.requests()
  const asked = keeper.workers.map(async (worker) => ({ ...(await worker.ask()) ?? silent(worker, keeper.memory.since), name }))
  const processes = await Promise.all(asked)
  // A process that has not begun to serve does not know when the service did.
  for (const status of processes) if (accepts(status.state)) keeper.noteService(status)
  const looking = keeper.workers.map(async (worker) => ({ slot: worker.slot, place: await keeper.lookout.placeOf(worker) }))
  const found = (await Promise.all(looking)).filter(({ place }) => place !== undefined)
  const down = keeper.stopping ? [] : keeper.active.filter(({ index, server }) => !server && !found.some(({ slot }) => slot === index))
  const requests = await counting
  const { crashes, count, lastReload, since, reloads } = keeper.memory
  return {
    name,
    keeper: {
      pid: process.pid,
      version,
      node: process.versions.node,
      ageMs: keeper.age.ms,
      workers: count,
      listeners: members.names,
      crashes,
      ...(keeper.options.spare && { spare: keeper.spare.status }),
      ...(found.length > 0 && { elsewhere: found.map(({ place }) => `${place!.what}. ${place!.todo}`) }),
      ...(members.sharing.length > 0 && { shared: members.sharing }),
      down: down.map((slot) => ({ slot: slot.index, ...restarts.describe(slot) })),
      checkpoints: keeper.checkpoints.status
    },
    service: since === undefined ? null : { startedAt: since, generation: newestGeneration(processes), requests },
    processes: processes.sort((a, b) => rank(a.state) - rank(b.state) || (a.slot ?? 0) - (b.slot ?? 0) || a.generation - b.generation),
    lastReload,
    reloads
  }
}

/** Serving processes come first, those that leave last. */
const rank = (state: LifecycleState): number => accepts(state) ? 0 : isLeaving(state) ? 2 : 1

/** What the keeper itself knows of a process that does not answer. */
const silent = ({ pid, slot, generation, state, age }: Worker, since = 0): Omit<ProcessStatus, 'name'> => ({
  pid, generation, state, keeper: process.pid, slot, version: null, node: '', ageMs: age.ms, listeners: [], connections: {},
  requests: { inFlight: 0, total: 0, failed: 0 }, waitsFor: ['it does not answer'], endsInMs: null, memory: 0, loopDelayMs: null,
  lastReport: null, service: { id: '', startedAt: since, requests: 0, includes: [] }, sections: []
})
