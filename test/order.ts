/**
 * The order of the test files: those that take longest first, so that none of them is left alone at the end; the others by their size, as
 * vitest has it.
 */

import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** As `node test/run.mjs --slowest` names them. A file that is not here is no mistake: it comes a little late. */
const longest = [
  'types/matrix', 'chaos/chaos', 'integration/keeper/spare', 'integration/connections/sessions', 'integration/sharing/prom-client', 'faults/before-ready', 'integration/keeper/kept-load', 'faults/bad-builds', 'integration/foreign/fastify', 'integration/packages/pack',
  'documents/pages', 'integration/connections/websockets', 'integration/connections/kinds', 'faults/crash', 'integration/packages/release', 'integration/control/reload-plain', 'integration/connections/http', 'integration/connections/sessions-wire', 'integration/keeper/keeper-life', 'integration/sharing/examples',
  'integration/sharing/large-values', 'documents/readme', 'integration/adapters/fastify', 'integration/shutdown/http', 'integration/sharing/share', 'integration/adapters/unaware', 'integration/sharing/hard', 'integration/sharing/between-versions', 'integration/keeper/bad-input', 'faults/moving',
  'integration/keeper/releases', 'faults/bad-checkpoint', 'faults/blocked', 'integration/keeper/workers', 'integration/adapters/preload', 'integration/packages/binaries', 'integration/control/healing', 'integration/connections/timers', 'peers/tools', 'integration/keeper/pid1',
  'faults/undo', 'fuzz/fuzz', 'integration/keeper/run-input', 'integration/shutdown/endings', 'integration/connections/sockets', 'integration/control/status', 'peers/rolling', 'integration/adapters/express', 'integration/keeper/checkpoint', 'documents/site'
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
