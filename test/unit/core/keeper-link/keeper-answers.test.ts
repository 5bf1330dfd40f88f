/** What a worker hears from its keeper, on a real line whose other end is the test's. */

import { closeSync } from 'node:fs'
import { expect, it } from 'vitest'
import { addon, openChannel, openPairs, type KeeperMessage, type WorkerMessage } from '@handover/core/internal'
import { HandoverError } from '@handover/core'
import { KeeperLink, type KeeperLinkSide, keeperMessages, workerMessages, textFile } from '../../../helpers/internals.js'

it('what others count is the answer that came in time, although its own deadline has passed before it could read it', async () => {
  const answerMs = 50
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  const keeper = openChannel<WorkerMessage, KeeperMessage>(theirMessages, theirDescriptors, workerMessages)
  const kept = new KeeperLink({ line: openChannel(messages, descriptors, keeperMessages), slot: 0, keeper: process.pid, name: 'test' }, { gone: () => undefined } as unknown as KeeperLinkSide, answerMs)
  void keeper.hearAll(({ message: word, fds }) => {
    if (word.type !== 'gather') return
    for (const fd of fds) closeSync(fd)
    const fd = textFile('7')
    keeper.send({ type: 'gathered', id: word.id, ids: ['other'] }, [fd])
    closeSync(fd)
    for (const until = performance.now() + 2 * answerMs; performance.now() < until;);
  }, (what) => { throw new Error(what) })
  const own = textFile('1')
  const asked = kept.gather('hits', { id: 'own', includes: [] }, own)
  closeSync(own)
  const gathered = await asked
  expect(gathered?.map(({ of }) => of)).toEqual(['other'])
  for (const { fd } of gathered ?? []) closeSync(fd)
  keeper.close()
})

it.each([
  ['its parts', { what: 'it ended', serving: 'Process 7 serves', todo: 'Repair it', stderr: 'Error: no database' }, { what: 'it ended', serving: 'Process 7 serves', todo: 'Repair it', stderr: 'Error: no database' }],
  ['the text alone, from an older keeper', {}, { what: 'it ended. Process 7 serves. Repair it.' }]
])('the error of a reload that it wanted has %s', async (_name, sent, found) => {
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  const keeper = openChannel<WorkerMessage, KeeperMessage>(theirMessages, theirDescriptors, workerMessages)
  const kept = new KeeperLink({ line: openChannel(messages, descriptors, keeperMessages), slot: 0, keeper: process.pid, name: 'test' }, { gone: () => undefined } as unknown as KeeperLinkSide)
  void keeper.hearAll(({ message: { type } }) => {
    if (type === 'wants') keeper.send({ type: 'outcome', ok: false, code: 'HANDOVER_SUCCESSOR_EXIT', message: 'it ended. Process 7 serves. Repair it.', ...sent })
  }, (what) => { throw new Error(what) })
  const error = await kept.wants({ withoutState: false, allowDrop: false })
  expect(error).toBeInstanceOf(HandoverError)
  const { code, message, what, serving, todo, stderr } = error!
  expect({ code, message }).toEqual({ code: 'HANDOVER_SUCCESSOR_EXIT', message: 'it ended. Process 7 serves. Repair it.' })
  expect({ what, serving, todo, stderr }).toEqual({ serving: undefined, todo: undefined, stderr: undefined, ...found })
  keeper.close()
})

it('of two reloads that are asked for each hears what became of it, in whatever order the keeper answers', async () => {
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  const keeper = openChannel<WorkerMessage, KeeperMessage>(theirMessages, theirDescriptors, workerMessages)
  const kept = new KeeperLink({ line: openChannel(messages, descriptors, keeperMessages), slot: 0, keeper: process.pid, name: 'test' }, { gone: () => undefined } as unknown as KeeperLinkSide)
  const wants: number[] = []
  void keeper.hearAll(({ message }) => {
    if (message.type !== 'wants' || wants.push(message.id ?? 0) < 2) return
    const [first = 0, second = 0] = wants
    keeper.send({ type: 'outcome', id: second, ok: false, code: 'HANDOVER_RELOAD_RUNNING', message: 'a reload already runs. It serves. Wait.' })
    keeper.send({ type: 'outcome', id: first, ok: true, code: '', message: '' })
  }, (what) => { throw new Error(what) })
  const wish = { withoutState: false, allowDrop: false }
  const [first, second] = await Promise.all([kept.wants(wish), kept.wants(wish)])
  expect([first, second?.code]).toEqual([undefined, 'HANDOVER_RELOAD_RUNNING'])
  keeper.close()
})
