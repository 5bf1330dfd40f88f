/** listen(handle): nothing can be claimed in its place, but what it listens on is offered. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, test } from 'vitest'
import { ask, freePorts } from '../../helpers/ask.js'
import { Program, programPath } from '../../helpers/program.js'

/** The program, started through a file that the next version replaces. */
async function start(first: string): Promise<{
  program: Program; port: number; next: (argument: string) => void; [Symbol.asyncDispose]: () => Promise<void>
}> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-handle-'))
  const main = path.join(folder, 'main.mjs')
  const next = (argument: string): void => { writeFileSync(main, `process.argv[2] = ${JSON.stringify(argument)}\nawait import(${JSON.stringify(programPath('handle.mjs'))})\n`) }
  next(first)
  const [port = 0] = await freePorts(1)
  const program = Program.start(main, { env: { PORT: String(port) } })
  return { program, port, next, [Symbol.asyncDispose]: async () => {
    await program[Symbol.asyncDispose](); rmSync(folder, { recursive: true })
  } }
}

test('what a server listens on by a handle is kept by a successor that asks for the address', async () => {
  await using running = await start('handle')
  const { program, port, next } = running
  await program.event('listening')
  next('address')
  const { report } = (await program.hangUp()) as unknown as { report: { listeners: { kept: string[]; dropped: string[] } } }
  expect(report.listeners).toMatchObject({ kept: [`tcp 127.0.0.1:${port}`], dropped: [] })
  expect(await ask('http', { port, host: '127.0.0.1' })).toBe(program.serving)
})

test('a successor that opens the handle itself is refused, and its predecessor serves on', async () => {
  await using running = await start('handle')
  const { program, port } = running
  await program.event('listening')
  await expect(program.hangUp()).rejects.toThrow(/EADDRINUSE/)
  expect(await ask('http', { port, host: '127.0.0.1' })).toBe(program.pid)
})
