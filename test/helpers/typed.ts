/** The code blocks of a page, and what a shell says when it is given one. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'

export interface Block {
  readonly language: string
  readonly text: string
  /** The block that follows at once, where it has no language: what this one prints. */
  readonly prints: string | undefined
}

export function blocksOf(file: string): Block[] {
  const fences = [...readFileSync(file, 'utf8').matchAll(/^```(\w*)\n(.*?)^```$\n*/gms)]
  return fences.map(([whole, language, text], index) => {
    const next = fences[index + 1]
    const follows = next?.[1] === '' && next.index === fences[index]!.index + whole.length
    return { language: language!, text: text!, prints: follows ? next[2] : undefined }
  })
}

/** A text that a page shows, as an expression: numbers differ, "…" stands for anything, and other lines may stand between. */
export const shown = (text: string): RegExp => new RegExp(text.trim().split('\n').map((line) => line.trim().split(/\s+/)
  .map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\d+/g, '\\d+').replaceAll('…', '.*')).join('\\s+')).join('[^]*?\n\\s*'))

export interface Typed {
  readonly status: number | null
  readonly output: string
  readonly errors: string
}

/** Resolves when the shell and all that it left running have ended. What still runs when the test ends, or after a failure, is killed. */
export async function type(script: string, cwd: string, env: NodeJS.ProcessEnv, onTestFinished: (end: () => void) => void): Promise<Typed> {
  const shell = spawn('bash', ['-eu', '-o', 'pipefail', '-c', script], { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  const end = (): void => {
    try { process.kill(-shell.pid!, 'SIGKILL') } catch { /* Nothing is left of it. */ }
  }
  onTestFinished(end)
  shell.once('exit', (code) => { if (code !== 0) end() })
  let output = ''
  let errors = ''
  shell.stdout.setEncoding('utf8').on('data', (text: string) => { output += text })
  shell.stderr.setEncoding('utf8').on('data', (text: string) => { errors += text })
  const [status] = await once(shell, 'close') as [number | null]
  return { status, output, errors }
}
