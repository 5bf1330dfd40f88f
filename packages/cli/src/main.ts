#!/usr/bin/env node
/** The command `handover`. Exit status: 0 done, 1 it could not be done, 2 it was asked wrongly. */

import { tooOld } from '@handover/core/internal'
import { parseCommand, type Command } from './command-line/arguments.js'
import type { Failure } from './failure.js'
import { printableLines } from './text.js'

async function run(command: Command): Promise<number> {
  switch (command.is) {
    case 'print':
      process.stdout.write(command.text)
      return 0
    case 'completion':
      process.stdout.write((await import('./command-line/completion.js')).completionOf(command.shell))
      return 0
    case 'reload': return await (await import('./commands/reload.js')).reload(command)
    case 'status': return await (await import('./commands/status.js')).showStatus(command)
    case 'report': return await (await import('./commands/report.js')).report(command)
    case 'stop': return await (await import('./commands/stop.js')).stop(command)
    case 'run':
      // Before all else is loaded.
      (await import('./keeper/memory-flags.js')).saveMemory()
      return await (await import('./commands/run.js')).run(command.options)
    case 'drill': return await (await import('./commands/drill.js')).drillApp(command.options)
  }
}

/** That of the keeper, whose bundle is a file of its own, is of another class. */
const isFailure = (error: unknown): error is Failure => error instanceof Error && 'json' in error && 'status' in error

/** These do nothing but to print. */
const printing: readonly Command['is'][] = ['print', 'completion', 'status', 'report']

// What reads the output, head(1) or a pager, may end early: what was asked for is still done, and the exit status says how.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)

/** A file on a full disk is no reader that has enough. */
function failUnwritten(): void {
  process.stdout.once('error', ({ code }: NodeJS.ErrnoException) => {
    if (code === 'EPIPE') return
    process.exitCode = 1
    process.stderr.write(`handover: standard output cannot be written (${code}).\n`)
  })
}

/** Also where the other words cannot be understood. What stands behind `run` may be the script's. */
const asksForJson = (words: readonly string[]): boolean => words[0] !== 'run' && words.some((word) => /^--json(=|$)/.test(word))

async function main(): Promise<void> {
  const old = tooOld()
  if (old !== undefined) {
    process.exitCode = 1
    process.stderr.write(`handover: ${old}\n`)
    return
  }
  const words = process.argv.slice(2)
  try {
    const command = parseCommand(words)
    if (printing.includes(command.is)) failUnwritten()
    const status = await run(command)
    process.exitCode ??= status
  } catch (error) {
    process.exitCode = isFailure(error) ? error.status : 1
    const text = isFailure(error) ? error.message : `handover: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
    // What an app says of itself is part of it, and root may ask that of any user.
    process.stderr.write(`${printableLines(text)}\n`)
    const told = isFailure(error) ? error.json : { message: text }
    if (asksForJson(words)) process.stdout.write(`${JSON.stringify({ ok: false, error: told })}\n`)
  }
}

void main()
