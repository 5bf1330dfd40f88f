/**
 * A real browser as the client of a WebSocket that moves, and of HTTPS and HTTP/2 over TLS: the pages of test/programs/ws-page.mjs and
 * fetch-page.mjs count and check what they see.
 */

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { endGroup, Program, programPath, type ProgramEvent } from '../helpers/program.js'

const { error } = spawnSync('chromium', ['--version'])
const reloads = 3

interface Found {
  readonly sent: number
  readonly came: number
  readonly pushed: number
  readonly errors: readonly string[]
  readonly generations: readonly number[]
}

/** Resolves when the whole browser is gone, which goes on writing its profile until then. */
function openPage(url: string): void {
  const profile = mkdtempSync(path.join(tmpdir(), 'handover-chromium-'))
  const browser = spawn('chromium', ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--ignore-certificate-errors', `--user-data-dir=${profile}`, url], { stdio: 'ignore', detached: true })
  onTestFinished(async () => {
    await endGroup(browser)
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  })
}

test.skipIf(error !== undefined).for(['http', 'https'])(`Chromium sees nothing of ${reloads} reloads (WebSocket over %s)${error ? ' (skipped: no chromium here)' : ''}`, { timeout: 180_000 }, async (scheme) => {
  const program = Program.start(programPath('ws-page.mjs'), { env: scheme === 'https' ? { TLS: '1' } : {} })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening')
  openPage(`${scheme}://127.0.0.1:${(address as { port: number }).port}/page`)

  const found = async (holds: (found: Found) => boolean): Promise<Found> => {
    const { found: last } = await program.event('found', (event) => holds(event['found'] as Found))
    return last as Found
  }
  await found(({ came }) => came > 0)
  for (let generation = 2; generation <= reloads + 1; generation++) {
    await program.hangUp()
    await found(({ generations }) => generations.includes(generation))
  }
  const { sent } = await found(({ generations }) => generations.length === reloads + 1)
  const last = await found(({ came }) => came >= sent)

  expect(last.errors).toEqual([])
  expect(last.generations).toEqual(Array.from({ length: reloads + 1 }, (_, index) => index + 1))
  expect(last.pushed).toBeGreaterThan(reloads)
  const events = (name: string): ProgramEvent[] => program.events.filter(({ event }) => event === name)
  expect(events('bad')).toEqual([])
  expect(events('close')).toEqual([])
  expect(events('closed')).toEqual([])
  expect(events('connection').map(({ moved }) => moved)).toEqual([false, ...Array.from({ length: reloads }, () => true)])
  for (const { agent, offered } of events('connection')) {
    expect(agent).toContain('Chrome/')
    expect(offered).toContain('permessage-deflate')
  }
})

interface Fetched {
  readonly answers: number
  readonly connects: number
  readonly protocols: readonly string[]
  readonly generations: readonly number[]
  readonly errors: readonly string[]
}

test.skipIf(error !== undefined).for([['https', 'http/1.1'], ['h2', 'h2']] as const)(
  `Chromium fetches over the connections that it has, over ${reloads} reloads (%s)${error ? ' (skipped: no chromium here)' : ''}`,
  { timeout: 180_000 }, async ([kind, protocol]) => {
    const program = Program.start(programPath('fetch-page.mjs'), { env: { KIND: kind } })
    onTestFinished(() => program[Symbol.asyncDispose]())
    const { address } = await program.event('listening')
    openPage(`https://127.0.0.1:${(address as { port: number }).port}/page`)

    const found = async (holds: (found: Fetched) => boolean): Promise<Fetched> =>
      (await program.event('found', (event) => holds(event['found'] as Fetched)))['found'] as Fetched
    const before = await found(({ answers }) => answers > 20)
    for (let generation = 2; generation <= reloads + 1; generation++) {
      await program.hangUp()
      await found(({ generations }) => generations.includes(generation))
    }
    const last = await found(({ generations }) => generations.length === reloads + 1)
    expect(last).toMatchObject({ connects: before.connects, protocols: [protocol], errors: [] })
    const reports = program.events.filter(({ report }) => (report as { result?: string } | undefined)?.result === 'drained')
    expect(reports.length).toBeGreaterThan(0)
    for (const { report } of reports) expect(report).toMatchObject({ connections: { drained: 0, closedIdle: 0, cut: 0, stayed: {} } })
  }
)
