/** The strict client in a process of its own: the same load, which ends with the test and says so when it dies. */

import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Target, nowMs, referenceHandler, startLoadProcess } from '@handover/load'
import { expect, onTestFinished, test } from 'vitest'
import { everyKind, names } from '../../helpers/every-kind.js'
import { exists } from '../../helpers/program.js'

async function reference(): Promise<Target> {
  const server = http.createServer(referenceHandler('1.0.0')).listen(0, '127.0.0.1')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port }
}

test('the same load runs in a process of its own, which ends with it', async () => {
  const target = await reference()
  const load = startLoadProcess(target, everyKind)
  await load.until(({ kinds }) => names.every((kind) => (kinds[kind]?.answers ?? 0) >= 5))
  const before = nowMs()
  await load.mark('reload')
  await load.until(({ latency }) => (latency['reload']?.count ?? 0) > 10)
  await load.mark()
  const result = await load.stop()
  expect(result.losses).toEqual([])
  expect(result.versions[0]?.firstAt).toBeLessThan(before)
  expect(result.versions[0]?.lastAt).toBeGreaterThan(before)
  await expect.poll(() => exists(load.pid!)).toBe(false)
})

test('everything that waits for a load in another process rejects when that process dies', async () => {
  const load = startLoadProcess(await reference(), everyKind)
  await load.until(({ answers }) => answers > 0)
  const waiting = expect(load.until(() => false)).rejects.toThrow('ended: SIGKILL')
  load.kill()
  await waiting
  await expect(load.mark('reload')).rejects.toThrow('ended: SIGKILL')
  await expect(load.stop()).rejects.toThrow('ended: SIGKILL')
})
