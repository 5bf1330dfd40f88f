/** The keys of a TLS connection that came here and cannot go on here. */

import { closeSync } from 'node:fs'
import { expect, it } from 'vitest'
import { type Channel, ConnectionReceiver, type Message, type MovedConnection, native, textFile } from '../../../helpers/internals.js'

const lengths = [6, 6, 4, 5, 3, 3, 0]
const one: MovedConnection = {
  kind: 'http', listener: 'tcp 127.0.0.1:9', ageMs: 5, requests: 1,
  tls: {
    protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', readSequence: 1, writeSequence: 1, lengths, authorized: false, reused: false,
    names: ['TLS_AES_128_GCM_SHA256', 'TLS_AES_128_GCM_SHA256', 'TLSv1.3']
  }
}

it('are overwritten where the connection is given back, with its session; those of another that is taken are left to it', async () => {
  const seen: (readonly Buffer[])[] = []
  const answers: Message[] = []
  const receiver = new ConnectionReceiver({ send: (message: Message) => { answers.push(message) } } as unknown as Channel, {
    receive: (fd, _about, _acknowledged, keys = []) => {
      closeSync(fd)
      return seen.push(keys) > 1
    }
  })
  const file = textFile('a'.repeat(27) + 'b'.repeat(27))
  await receiver.take([one, { ...one, tls: { ...one.tls! } }], [file, native!.duplicate(file), native!.duplicate(file)])
  expect(answers).toEqual([{ type: 'taken', count: 2, back: [0] }])
  expect(seen.map((keys) => keys.map(String))).toEqual([
    ['\0'.repeat(6), '\0'.repeat(6), '\0'.repeat(4), '\0'.repeat(5), 'aaa', 'aaa', ''],
    ['b'.repeat(6), 'b'.repeat(6), 'bbbb', 'bbbbb', 'bbb', 'bbb', '']
  ])
})
