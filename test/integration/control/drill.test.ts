/** handover drill against servers with Handover: over TCP, TLS and a Unix socket a reload loses nothing. */

import { mkdtempSync, rmSync } from 'node:fs'
import type net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Report } from '@handover/core'
import type { ReloadOutcome } from '@handover/core/internal'
import { expect, onTestFinished, test } from 'vitest'
import { drilled, drilledJson, outcome } from '../../helpers/drilling.js'
import { Program, programPath } from '../../helpers/program.js'

/** A server with Handover, in a process of its own, and a reload of it by signal. */
async function reloadable(env: Record<string, string>): Promise<{
  program: Program; listener: string; reload: () => Promise<ReloadOutcome>
}> {
  const program = Program.start(programPath('server.mjs'), { env })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening')
  const listener = typeof address === 'string' ? `unix ${address}` : `tcp 127.0.0.1:${(address as net.AddressInfo).port}`
  const reload = async (): Promise<ReloadOutcome> => {
    const at = Date.now()
    const report = (await program.hangUp()).report as Report
    return outcome({ at, ms: Date.now() - at, reports: [report], serving: [report.successor!] })
  }
  return { program, listener, reload }
}

test('a reload by Handover loses nothing and keeps every connection open, and the drill ends with 0', async () => {
  const { listener, reload } = await reloadable({})
  const { status, result } = await drilledJson({ listeners: ['udp 127.0.0.1:1', listener] }, reload)
  expect(result).toMatchObject({ result: 'reloaded', status: 200, lost: 0, losses: [], error: null })
  expect(result.keptOpen).toMatchObject({ clients: 18, before: { opened: 18 }, since: { opened: 0, closedByServer: { total: 0 } } })
  expect(result.newEachTime.since.opened).toBeGreaterThan(0)
  expect(result.requests).toBe(result.answers)
  expect(result.phases.before.answered + result.phases.reload.answered + result.phases.after.answered).toBe(result.answers)
  for (const phase of Object.values(result.phases)) expect(phase.answered).toBeGreaterThan(0)
  expect(result.reload?.serving[0]?.generation).toBe(2)
  expect(status).toBe(0)
})

test('a reload over TLS loses nothing, nobody has to say that it is TLS, and a path of its own may be named', async () => {
  const { listener, reload } = await reloadable({ KIND: 'https' })
  const { status, text } = await drilled({ listeners: [listener], path: '/slow?ms=20' }, reload)
  expect(text).toMatch(/^GET https:\/\/127\.0\.0\.1:\d+\/slow\?ms=20: 18 clients on connections that stay open, 2 with a new one each time; 200 is the right answer\.$/m)
  expect(text).toMatch(/^Nothing was lost: [\d,]+ requests were sent and [\d,]+ answered\.$/m)
  expect(status).toBe(0)
})

test('a reload on a Unix socket loses nothing', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-drill-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const { listener, reload } = await reloadable({ LISTEN: `unix:${path.join(folder, 'app.sock')}` })
  const { status, text } = await drilled({ listeners: [listener] }, reload)
  expect(text).toContain(`GET / by unix ${path.join(folder, 'app.sock')}: `)
  expect(text).toMatch(/^Reloaded in [\d,]+ ms: process \d+ \(generation 2\) serves now\.$/m)
  expect(status).toBe(0)
})
