/**
 * What NODE_DEBUG=handover shows of a reload: each move of a lifecycle, and each message with the number of its descriptors, and nothing of
 * what it carries.
 */

import { expect, test } from 'vitest'
import { Moving } from '../../helpers/moving.js'

/** What the two generations wrote, each its own lines in their order. */
function written(stderr: string): string[][] {
  const lines = [...stderr.matchAll(/^HANDOVER (\d+): (.*)$/gm)].map(([, pid, line]) => ({ pid, line: line! }))
  return [...new Set(lines.map(({ pid }) => pid))].map((pid) => lines.filter((each) => each.pid === pid).map(({ line }) => line))
}

/** `expected` stand in `lines` in this order. */
function inOrder(lines: readonly string[] | undefined, expected: readonly string[]): void {
  let at = -1
  const found = expected.filter((line) => (at = lines?.indexOf(line, at + 1) ?? -1) >= 0)
  expect(found, lines?.join('\n')).toEqual(expected)
}

test('a reload shows its moves and messages, in both processes', async () => {
  const moving = await Moving.start({ env: { NODE_DEBUG: 'handover' } })
  await moving.idleClient()
  await moving.reload()
  await moving.arrived(1)
  await moving.report()
  const [predecessor, successor] = written(moving.program.stderr)
  inOrder(predecessor, [
    'lifecycle: idle to serving', 'lifecycle: serving to launching', 'from the neighbour: hello', 'lifecycle: launching to offering',
    'from the neighbour: ready', 'lifecycle: offering to committing', 'to the neighbour: commit', 'from the neighbour: serving',
    'lifecycle: committing to draining', 'to the neighbour: move, 1 descriptor', 'from the neighbour: taken'
  ])
  expect(predecessor?.join('\n')).toMatch(/^to the neighbour: offer, \d descriptors?$/m)
  inOrder(successor, [
    'to the neighbour: hello', 'lifecycle: taking to preparing', 'lifecycle: preparing to ready', 'to the neighbour: ready',
    'from the neighbour: commit', 'lifecycle: ready to serving', 'to the neighbour: serving', 'from the neighbour: move, 1 descriptor', 'to the neighbour: taken'
  ])
  expect(successor?.join('\n')).toMatch(/^from the neighbour: offer, \d descriptors?$/m)
  expect(moving.program.stderr).not.toMatch(/HANDOVER.*[{}]/)
})

test('without it nothing of that is written', async () => {
  const moving = await Moving.start()
  await moving.reload()
  await moving.report()
  expect(moving.program.stderr).not.toContain('HANDOVER ')
})
