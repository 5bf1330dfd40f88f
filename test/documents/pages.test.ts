/**
 * The first block of each page of docs/, and of the README of each package, runs as it is typed in a folder where the packages are
 * installed: it ends with status 0 and leaves no process. The block without a language that may follow it is what it prints: numbers
 * differ, "…" stands for anything. Only the ports are replaced. A block whose tools are missing is skipped, and its name says so.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { freePorts } from '../helpers/ask.js'
import { blocksOf, shown, type } from '../helpers/typed.js'

const root = fileURLToPath(new URL('../..', import.meta.url))

const needs: Readonly<Record<string, readonly string[]>> = {
  'containers.md': ['unshare', '--map-root-user', '--pid', '--fork', '--mount-proc', 'true'],
  'from-nginx.md': ['nginx', '-v'],
  'tls-and-http2.md': ['openssl', 'version']
}

const missing = (page: string): string => {
  const [command, ...args] = needs[page] ?? ['true']
  return spawnSync(command!, args).status === 0 ? '' : ` (skipped: ${command} is not installed, or not allowed)`
}

const pages = [
  ...readdirSync(path.join(root, 'docs')).filter((name) => name.endsWith('.md') && name !== 'index.md').map((name) => `docs/${name}`),
  ...readdirSync(path.join(root, 'packages'), { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => `packages/${name}/README.md`)
].map((page) => [page, missing(path.basename(page))] as const)

describe.concurrent('the first block', () => {
  test.for(pages)('of %s runs as it is typed%s', { timeout: 120_000 }, async ([page, skipped], { skip, onTestFinished }) => {
    skip(skipped !== '')
    const [program, ...others] = blocksOf(path.join(root, page))
    // The README of a package shows a program first; its first line names its file.
    const [file, first] = page.startsWith('packages/') ? [/^\/\/ ([\w.]+)\n/.exec(program!.text)![1]!, others[0]] : [undefined, program]
    expect(first?.language, 'the language of what is typed').toBe('sh')
    const [port, other] = await freePorts(2)
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-page-'))
    onTestFinished(() => { rmSync(folder, { recursive: true, force: true, maxRetries: 5 }) })
    symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'))
    const env = { ...process.env, HANDOVER_DIR: path.join(folder, 'sockets'), NO_COLOR: '1' }
    // In one step: a free port may contain the other number (38080).
    const ported = (text: string): string => text.replace(/3000|8080/g, (found) => String(found === '3000' ? port : other))
    if (file !== undefined) writeFileSync(path.join(folder, file), ported(program!.text))
    const typed = await type(ported(first!.text), folder, env, onTestFinished)
    expect(typed).toMatchObject({ status: 0 })
    if (first!.prints !== undefined) expect(typed.output).toMatch(shown(first!.prints))
  })
})
