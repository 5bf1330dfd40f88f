/**
 * A real browser as the client of a WebSocket that moves: the page of test/programs/ws-page.mjs counts and checks what it sees.
 */

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Program, programPath, waitFor, type ProgramEvent } from '../helpers/program.js'

const { error } = spawnSync('chromium', ['--version'])
const reloads = 5

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
  const browser = spawn('chromium', ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', `--user-data-dir=${profile}`, url], { stdio: 'ignore', detached: true })
  onTestFinished(async () => {
    const group = -browser.pid!
    process.kill(group, 'SIGKILL')
    await waitFor(() => {
      try {
        process.kill(group, 0)
        return false
      } catch {
        return true
      }
    })
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  })
}

test.skipIf(error !== undefined)(`Chromium sees nothing of ${reloads} reloads${error ? ' (skipped: no chromium here)' : ''}`, { timeout: 180_000 }, async () => {
  const program = Program.start(programPath('ws-page.mjs'))
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening')
  openPage(`http://127.0.0.1:${(address as { port: number }).port}/page`)

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
