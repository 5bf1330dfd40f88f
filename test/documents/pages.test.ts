/**
 * The first block of each page of docs/ runs, as it is typed, in a folder where the packages are installed: it ends with status 0 and
 * leaves no process. The block without a language that may follow it is what it prints: numbers differ, "…" stands for anything.
 * Only the ports are replaced. A block whose tools are missing is skipped, and its name says so.
 */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { freePorts } from '../helpers/ask.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const docs = path.join(root, 'docs')

const needs: Readonly<Record<string, readonly string[]>> = {
  'containers.md': ['unshare', '--map-root-user', '--pid', '--fork', '--mount-proc', 'true'],
  'from-nginx.md': ['nginx', '-v'],
  'tls-and-http2.md': ['openssl', 'version']
}

const missing = (page: string): string => {
  const [command, ...args] = needs[page] ?? ['true']
  return spawnSync(command!, args).status === 0 ? '' : ` (skipped: ${command} is not installed, or not allowed)`
}

/** What a block says that it prints, as one expression. */
const printed = (text: string): RegExp => new RegExp(text.trim().split('\n').map((line) => line.trim().split(/\s+/)
  .map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\d+/g, '\\d+').replaceAll('…', '.*')).join('\\s+')).join('[^]*?\n\\s*'))

const pages = readdirSync(docs).filter((name) => name.endsWith('.md') && name !== 'index.md').map((page) => [page, missing(page)] as const)

describe.concurrent('the first block', () => {
  test.for(pages)('of docs/%s runs as it is typed%s', { timeout: 120_000 }, async ([page, skipped], { skip, onTestFinished }) => {
    skip(skipped !== '')
    const fences = [...readFileSync(path.join(docs, page), 'utf8').matchAll(/^```(\w*)\n(.*?)^```$\n*/gms)]
    const [first, second] = fences
    expect(first?.[1], 'the language of the first block').toBe('sh')
    const [port, other] = await freePorts(2)
    const script = first![2]!.replaceAll('3000', String(port)).replaceAll('8080', String(other))
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-page-'))
    symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'))
    const env = { ...process.env, HANDOVER_DIR: path.join(folder, 'sockets'), NO_COLOR: '1' }
    const shell = spawn('bash', ['-eu', '-o', 'pipefail', '-c', script], { cwd: folder, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    onTestFinished(() => {
      try { process.kill(-shell.pid!, 'SIGKILL') } catch { /* Nothing is left of it. */ }
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    })
    let output = ''
    let errors = ''
    shell.stdout.setEncoding('utf8').on('data', (text: string) => { output += text })
    shell.stderr.setEncoding('utf8').on('data', (text: string) => { errors += text })
    shell.once('exit', (code) => { if (code !== 0) process.kill(-shell.pid!, 'SIGKILL') })
    // `close` comes when the last process that the block started is gone as well.
    const [status] = await once(shell, 'close') as [number | null]
    expect({ status, errors, output }).toMatchObject({ status: 0 })
    if (second?.[1] === '' && second.index === first!.index + first![0].length) expect(output).toMatch(printed(second[2]!))
    if (process.env['HANDOVER_SHOW_PAGES']) console.log(`${page}\n${output}\n--- stderr\n${errors}`)
  })
})
