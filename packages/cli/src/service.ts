/**
 * The service as one: since when it runs, and how many requests were begun in all of its processes, with each process counted once
 * however many of the others have its count in theirs. Pure.
 */

import { accepts, type ProcessStatus, type ServiceCount, type ServiceStatus } from '@handover/core/internal'

/** Of a process that does not answer, and never did. */
export const unknownService: ServiceCount = { id: '', startedAt: 0, requests: 0, includes: [] }

/** `gone`: of processes that are gone. Null where nothing is known of any. */
export function serviceOf(processes: readonly ProcessStatus[], gone: readonly ServiceCount[] = []): ServiceStatus | null {
  // A process of an older version says nothing of it.
  const services = [...processes.map(({ service }) => (service as ServiceCount | undefined) ?? unknownService), ...gone].filter(({ id }) => id !== '')
  if (services.length === 0) return null
  const included = new Set(services.flatMap(({ includes }) => includes))
  const counted = new Map(services.filter(({ id }) => !included.has(id)).map((service) => [service.id, service]))
  const serving = processes.filter(({ state }) => accepts(state))
  return {
    startedAt: Math.min(...services.map(({ startedAt }) => startedAt)),
    generation: Math.max(...(serving.length > 0 ? serving : processes).map(({ generation }) => generation), 0),
    requests: [...counted.values()].reduce((sum, { requests }) => sum + requests, 0)
  }
}
