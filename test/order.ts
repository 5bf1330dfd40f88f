/** The order of the test files: those that take longest first, so that none of them is left alone at the end; the others by their size, as vitest has it. */

import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** As `node test/run.mjs --slowest` names them. A file that is not here is no mistake: it comes a little late. */
const longest = [
  'pack', 'cli/kept-load', 'prom-client/reloads', 'chaos/chaos', 'cli/keeper-life', 'cli/bad-builds', 'faults/before-ready', 'state/text', 'cli/bad-input',
  'adapters/fastify', 'cli/crash', 'move/http', 'cli/reload-plain', 'state/examples', 'move/websockets', 'move/kinds', 'cli/faults', 'state/hard', 'stop/http',
  'move/fuzz', 'surprises', 'cli/preload', 'foreign/fastify', 'move/modes', 'faults/concurrent', 'cli/workers', 'cli/status', 'cli/bad-checkpoint', 'cli/run-input',
  'move/unread', 'faults/moving', 'cli/pid1', 'move/tools', 'examples', 'move/versions'
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
