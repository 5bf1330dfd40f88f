/** The record layer of moved TLS connections against Node's own TLS, which is on the other side of each. */

import { randomBytes } from 'node:crypto'
import tls from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import { snapshotTls, tlsUnavailable } from '../../../helpers/internals.js'
import { moveTls, take, talk, tlsPair, type MovedTls, type TlsPair } from '../../../helpers/tls-moving.js'

const suites = [
  ['TLSv1.3', 'TLS_AES_128_GCM_SHA256'], ['TLSv1.3', 'TLS_AES_256_GCM_SHA384'], ['TLSv1.3', 'TLS_CHACHA20_POLY1305_SHA256'],
  ['TLSv1.2', 'ECDHE-ECDSA-AES128-GCM-SHA256'], ['TLSv1.2', 'ECDHE-ECDSA-AES256-GCM-SHA384'], ['TLSv1.2', 'ECDHE-ECDSA-CHACHA20-POLY1305']
] as const

const open: { end(): void }[] = []
afterEach(() => { for (const each of open.splice(0)) each.end() })

async function pair(version: tls.SecureVersion = 'TLSv1.3', ciphers?: string, options: tls.TlsOptions = {}): Promise<TlsPair> {
  const made = await tlsPair({ minVersion: version, maxVersion: version, ...(ciphers !== undefined && { ciphers }), ...options })
  open.push(made)
  return made
}

function moved(from: TlsPair): MovedTls {
  const made = moveTls(from)
  open.push(made)
  return made
}

it('TLS can be watched in this version of Node', () => {
  expect(tlsUnavailable()).toBeUndefined()
})

describe.each(suites)('%s %s', (version, suite) => {
  it('goes on in both directions, with small and large pieces', async () => {
    const from = await pair(version, suite)
    await talk(from)
    const { layer, socket, read } = moved(from)
    for (const length of [1, 5, 16_383, 16_384, 16_385, 200_000]) {
      const sent = randomBytes(length)
      const there = read(length)
      from.client.write(sent)
      expect((await there).equals(sent)).toBe(true)
      const back = take(from.client, length)
      socket.write(layer.write(sent))
      expect((await back).equals(sent)).toBe(true)
    }
    expect(layer.whole).toBe(true)
  })

  it('has counted the records exactly', async () => {
    const from = await pair(version, suite)
    for (let times = 0; times < 20; times++) await talk(from, 'x'.repeat(1 + times * 800))
    const snapshot = snapshotTls(from.server)
    const first = version === 'TLSv1.3' ? { in: 0n, out: 2n } : { in: 1n, out: 1n } // two session tickets; the Finished
    expect(snapshot).toMatchObject({ protocol: version, readSequence: first.in + 20n, writeSequence: first.out + 20n })
  })
})
