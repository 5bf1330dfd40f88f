/**
 * What NODE_DEBUG=handover shows of a reload: each move of a lifecycle, each message with the number of its descriptors, and each
 * connection that stays, with the reason; and nothing of what messages and connections carry.
 */

import { expect, test } from 'vitest'
import { ask, goesOn, Moving } from '../../helpers/moving.js'

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
  // At the switch its stderr is its own again: what it writes from then on may overtake what its predecessor still passes on.
  inOrder(successor, [
    'to the neighbour: hello', 'lifecycle: taking to preparing', 'lifecycle: preparing to ready', 'to the neighbour: ready',
    'from the neighbour: commit', 'lifecycle: ready to serving'
  ])
  inOrder(successor, ['to the neighbour: serving', 'from the neighbour: move, 1 descriptor', 'to the neighbour: taken'])
  expect(successor?.join('\n')).toMatch(/^from the neighbour: offer, \d descriptors?$/m)
  expect(moving.program.stderr).not.toMatch(/HANDOVER.*[{}]/)
})

test('a reload shows each connection that stays, and why', async () => {
  const moving = await Moving.start({ veto: true, env: { NODE_DEBUG: 'handover' } })
  const [moved, vetoed, listened, upgraded] = [
    await moving.idleClient(), await moving.client(), await moving.client(), await moving.client()
  ]
  await ask(vetoed, '/stay')
  await ask(listened, '/listen')
  await upgraded.request('/echo', { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' }).received(/ 101 [^]*\r\n\r\n$/)
  await moving.reload()
  await moving.arrived(1)
  await goesOn(moved)
  for (const client of [vetoed, listened]) expect((await ask(client, '/')).headers.get('connection')).toBe('close')
  upgraded.socket.end()
  const { connections } = await moving.report()
  expect(connections).toMatchObject({ moved: 1, stayed: { 'vetoed by canMove': 1, 'read by the application': 1, upgraded: 1 } })
  const stays = written(moving.program.stderr).flat().filter((line) => line.startsWith('connection stays'))
  expect(stays.sort()).toEqual([
    'connection stays (http): read by the application', 'connection stays (http): vetoed by canMove',
    'connection stays (upgraded): upgraded, unless the application moves it'
  ])
})

test('a stop shows each connection that stays', async () => {
  const moving = await Moving.start({ options: { linger: 100 }, env: { NODE_DEBUG: 'handover' } })
  await moving.idleClient()
  process.kill(moving.program.pid, 'SIGTERM')
  await moving.program.ended
  expect(moving.program.stderr).toMatch(/^HANDOVER \d+: connection stays \(http\): there is no successor$/m)
})

test('without it nothing of that is written', async () => {
  const moving = await Moving.start()
  await moving.reload()
  await moving.report()
  expect(moving.program.stderr).not.toContain('HANDOVER ')
})
