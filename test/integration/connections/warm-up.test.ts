/**
 * What a spare does before it waits: Node's code and ours serve requests of its own, and nothing of them is left. In processes of their
 * own, whose event loop does not run yet, over this Node and those of HANDOVER_TEST_NODES.
 */

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { internalFile } from '../../helpers/built.js'

const nodes = [process.execPath, ...(process.env['HANDOVER_TEST_NODES'] ?? '').split(':').filter((binary) => binary !== '')]

interface Seen {
  readonly answered: number
  readonly before: unknown
  readonly after: unknown
  /** What was thrown, as text; of the second one, too. */
  readonly thrown: readonly string[]
}

/** `first` runs before the program; each case has a process. */
async function warmed(node: string, first = ''): Promise<Seen> {
  const program = `${first}
    const { warmUp } = require(${JSON.stringify(internalFile)})
    const { channel } = require('node:diagnostics_channel')
    let answered = 0
    channel('http.server.response.finish').subscribe(() => { answered++ })
    const seen = () => [require('node:fs').readdirSync('/proc/self/fd'), process.getActiveResourcesInfo().sort()]
    const thrown = [String(warmUp().thrown)] // libuv opens /dev/null once, for its first stream
    const before = seen()
    thrown.push(String(warmUp().thrown))
    const after = seen()
    process.on('exit', () => { console.log(JSON.stringify({ answered, before, after, thrown })) })`
  const { stdout, stderr } = await promisify(execFile)(node, ['-e', program], { timeout: 60_000 })
  expect(stderr).toBe('')
  return JSON.parse(stdout) as Seen
}

describe.runIf(process.platform === 'linux').each(nodes)('with %s a warm-up', (node) => {
  test('answers requests, keeps no descriptor or handle of them, and lets the process end', async () => {
    const { answered, before, after, thrown } = await warmed(node)
    expect(thrown).toEqual(['undefined', 'undefined'])
    expect(answered).toBeGreaterThan(100)
    expect(after).toEqual(before)
  })

  test.each([
    'Object.defineProperty(process, "_tickCallback", { value: undefined })',
    'Object.defineProperty(require("node:net"), "_createServerHandle", { value: undefined })'
  ])('does nothing where this Node has another inside: %s', async (first) => {
    const { answered, before, after } = await warmed(node, first)
    expect(answered).toBe(0)
    expect(after).toEqual(before)
  })
})
