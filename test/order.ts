/**
 * The order of the test files: those that take longest first, so that none of them is left alone at the end; the others by their size, as
 * vitest has it.
 */

import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** As `node test/run.mjs --slowest` names them. A file that is not here is no mistake: it comes a little late. */
const longest = [
  'types/matrix', 'chaos/chaos', 'faults/before-ready', 'integration/sharing/prom-client', 'fuzz/fuzz', 'integration/connections/sessions-wire', 'documents/pages', 'faults/bad-builds', 'integration/foreign/fastify', 'integration/connections/websockets',
  'integration/keeper/kept-load', 'integration/connections/sessions', 'integration/sharing/examples', 'integration/sharing/between-versions', 'integration/connections/kinds', 'integration/packages/pack', 'integration/keeper/keeper-life', 'faults/crash', 'integration/adapters/fastify', 'integration/packages/release',
  'integration/control/reload-plain', 'documents/readme', 'integration/packages/install', 'integration/shutdown/http', 'integration/connections/http', 'integration/keeper/run-input', 'integration/keeper/releases', 'integration/keeper/spare', 'integration/sharing/share', 'integration/keeper/bad-input',
  'peers/chromium', 'integration/sharing/large-values', 'integration/connections/sockets', 'integration/sharing/hard', 'faults/moving', 'peers/tools', 'faults/blocked', 'integration/adapters/preload', 'integration/adapters/express', 'peers/http2-clients',
  'integration/keeper/checkpoint', 'integration/connections/timers', 'integration/keeper/workers', 'faults/bad-checkpoint', 'integration/keeper/elsewhere', 'integration/control/healing', 'integration/control/status', 'integration/handover/servers', 'faults/undo', 'integration/shutdown/endings',
  'integration/keeper/metrics', 'integration/adapters/socketio', 'peers/event-source', 'integration/shutdown/activation', 'documents/site', 'integration/packages/binaries', 'integration/load/example', 'integration/control/report', 'integration/connections/tls', 'integration/connections/unread',
  'unit/cli/memory-watch', 'unit/load/losses', 'unit/cli/drill', 'unit/core/sharing/section-file', 'unit/core/platform/tls-records', 'unit/core/sharing/plain-value', 'unit/cli/keeper', 'unit/core/sharing/aggregate', 'unit/cli/count-store', 'unit/cli/listener-members', 'unit/load/client'
]

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`))
      return at < 0 ? longest.length : at
    }
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b))
  }
}
