/**
 * The order of the test files: those that take longest first, so that none of them is left alone at the end; the others by their size, as
 * vitest has it.
 */

import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** As `node test/run.mjs --slowest` names them. A file that is not here is no mistake: it comes a little late. */
const longest = [
  'types/matrix', 'integration/packages/pack', 'integration/keeper/kept-load', 'integration/sharing/prom-client', 'chaos/chaos', 'integration/keeper/keeper-life', 'faults/bad-builds', 'faults/before-ready', 'integration/sharing/large-values', 'integration/keeper/bad-input',
  'integration/adapters/fastify', 'faults/crash', 'integration/connections/http', 'integration/control/reload-plain', 'integration/sharing/examples', 'integration/connections/websockets', 'integration/connections/kinds', 'faults/keeper-faults', 'integration/sharing/hard', 'integration/shutdown/http',
  'fuzz/fuzz', 'integration/handover/launch', 'integration/adapters/preload', 'integration/foreign/fastify', 'integration/connections/modes', 'faults/concurrent', 'integration/keeper/workers', 'integration/control/status', 'faults/bad-checkpoint', 'integration/keeper/run-input',
  'integration/connections/sessions-wire', 'integration/connections/unread', 'faults/moving', 'integration/keeper/pid1', 'peers/tools', 'documents/examples', 'peers/versions'
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
