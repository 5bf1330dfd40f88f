/**
 * The service as one, for an app without a keeper: put together from what each process says. A keeper has the counts itself. Pure.
 */

import { accepts, mergedIds, type ProcessStatus, type ServiceStatus } from '@handover/core/internal'

/** Null where no process answers. */
export function serviceOf(processes: readonly ProcessStatus[]): ServiceStatus | null {
  const services = processes.map(({ service }) => service).filter(({ id }) => id !== '')
  if (services.length === 0) return null
  const merged = mergedIds(services)
  const requests = services.reduce((sum, { id, requests }) => (merged.has(id) ? sum : sum + requests), 0)
  return { startedAt: Math.min(...services.map(({ startedAt }) => startedAt)), generation: newestGeneration(processes), requests }
}

/** The newest that serves; of those that drain where none does; 0 where there is no process. */
export function newestGeneration(processes: readonly ProcessStatus[]): number {
  const serving = processes.filter(({ state }) => accepts(state))
  return Math.max(...(serving.length > 0 ? serving : processes).map(({ generation }) => generation), 0)
}
