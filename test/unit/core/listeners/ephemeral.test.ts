/** Which listeners may come and go: those whose port the system chose. An offer says so by a flag, not by the words of a key. */

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { isEphemeral, ListenerRegistry, type AskedAddress, type OfferedListener } from '../../../helpers/internals.js'

/** A server listens, on any port that is free; `asked` is what its program is said to have asked for. */
async function listening(asked: AskedAddress, claimed?: OfferedListener): Promise<OfferedListener> {
  const server = net.createServer().listen(asked.path === undefined ? { host: asked.host, port: 0 } : { path: asked.path })
  onTestFinished(() => { server.close() })
  await once(server, 'listening')
  return new ListenerRegistry().add(server, asked, claimed, 511)!.about
}

const any = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const

describe('a listener in an offer is ephemeral', () => {
  test('where the program asked for port 0', async () => {
    const about = await listening(any)
    expect(about.port).toBeGreaterThan(0)
    expect(about).toMatchObject({ asked: 'tcp 127.0.0.1:0', ephemeral: true })
  })

  test('where it asked for port 0 of IPv6 alone', async () => {
    expect(await listening({ kind: 'tcp', host: '::1', port: 0, ipv6Only: true })).toMatchObject({ asked: 'tcp [::1]:0 ipv6Only', ephemeral: true })
  })

  test('where it claims by its descriptor what an older generation had asked port 0 for', async () => {
    expect(isEphemeral(await listening({ kind: 'tcp', fd: 3 }, await listening(any)))).toBe(true)
  })

  test('and not where the file of a Unix socket happens to end in :0', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-ephemeral-'))
    onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
    const about = await listening({ kind: 'unix', path: path.join(folder, 'display:0') })
    expect(about.ephemeral).toBeUndefined()
    expect(isEphemeral(about)).toBe(false)
  })

  test('and not where it asked for a port, or for a descriptor', async () => {
    expect(isEphemeral(await listening({ ...any, port: 3000 }))).toBe(false)
    expect(isEphemeral(await listening({ kind: 'tcp', fd: 3 }))).toBe(false)
  })
})
