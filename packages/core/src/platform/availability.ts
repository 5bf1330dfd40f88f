/**
 * Whether this process can hand over at all: HANDOVER=off turns it off, and some runtimes cannot pass descriptors.
 * native.ts says whether there is a binary of the addon.
 */

export const switchedOff = 'HANDOVER=off'

/** Why this process can neither give nor take listeners, or undefined. */
export function unavailable(): string | undefined {
  if (/^\s*(off|0|false|no)\s*$/i.test(process.env['HANDOVER'] ?? '')) return switchedOff
  if ('Bun' in globalThis) return 'Bun has no descriptors to pass'
  if ('Deno' in globalThis) return 'Deno has no descriptors to pass'
  return undefined
}
