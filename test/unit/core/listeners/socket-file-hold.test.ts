import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileId, SocketFileHold } from '@handover/core/internal'
import { expect, onTestFinished, test } from 'vitest'

test('of two sockets of one path the one that is there stays, and the other is told of once, not at each change in the folder', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-hold-'))
  onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
  const file = path.join(folder, 'app.sock')
  const ids: string[] = []
  for (const place of [file, `${file}.new`]) {
    const server = net.createServer().listen(place)
    onTestFinished(() => { server.close() })
    await once(server, 'listening')
    ids.push(fileId(place)!)
  }
  const served = ids.slice(0, 1)
  const told: unknown[] = []
  const hold = new SocketFileHold({
    files: () => served.map((id) => ({ name: 'unix app.sock', file, id })),
    changed: ({ id }, isBack) => { told.push({ id, isBack }) }
  })
  onTestFinished(() => { hold.release() })
  renameSync(`${file}.new`, file)
  served.push(ids[1]!)
  for (let count = 0; count < 3; count++) expect(hold.check()).toEqual(['unix app.sock'])
  expect(told).toEqual([{ id: ids[0], isBack: false }])
  expect(fileId(file)).toBe(ids[1])
})
