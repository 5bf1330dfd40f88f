/**
 * Private parts of Node are touched in packages/core/src/platform/node alone, and the lint finds each that is touched elsewhere: every way
 * to write one, and every name that this folder uses, is tried in a file of another room.
 */

import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { ESLint } from 'eslint'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = 'packages/core/src/platform/node'
// Without types, which take half a minute and which this rule does not use.
const withoutTypes = { languageOptions: { parserOptions: { projectService: false } } }
const eslint = new ESLint({ cwd: root, overrideConfig: withoutTypes, ruleFilter: ({ ruleId }) => ruleId === 'no-restricted-syntax' })

/** The texts that are refused when `text` stands in `file`. */
async function refused(text: string, file: string): Promise<string[]> {
  const [result] = await eslint.lintText(text, { filePath: path.join(root, file) })
  const lines = text.split('\n')
  return result!.messages.map(({ message, line, column, endLine, endColumn }) => {
    expect(message).toContain('Only packages/core/src/platform/node touches private parts of Node')
    expect(endLine).toBe(line)
    return lines[line - 1]!.slice(column - 1, endColumn! - 1)
  })
}

const ways: Record<string, string> = {
  'a field of a handle': 'server._handle.fd',
  'a field by its name as a string': "server['_handle']",
  'a field taken apart': 'const { _parent: plain } = socket',
  'a field in a type': 'type Socket = { _httpMessage?: object }',
  'a field that is looked for': "'_handle' in server",
  'a field that is defined': "Object.defineProperty(server, '_handle', {})",
  'a field that is reflected on': "Reflect.get(server, '_handle')",
  'a field in an object': 'const options = { _handle: handle }',
  'a method of a handle': 'handle.readStop()',
  'a symbol by its description': "symbols.find(({ description }) => description === 'kOutHeaders')",
  'a binding': "process.binding('tcp_wrap')"
}

describe('the lint refuses, outside platform/node,', () => {
  it.each(Object.entries(ways))('%s', async (_way, text) => {
    expect(await refused(text, 'packages/core/src/listeners/listen-hook.ts')).toHaveLength(1)
    expect(await refused(text, 'packages/cli/src/main.ts')).toHaveLength(1)
    expect(await refused(text, `${home}/inside.ts`)).toEqual([])
  })

  it('every private name that platform/node uses', async () => {
    for (const file of readdirSync(path.join(root, home))) {
      const text = readFileSync(path.join(root, home, file), 'utf8')
      const code = text.replace(/\/\*\*[\s\S]*?\*\/|\/\/ .*/g, '')
      const names = code.match(/\b(_[a-zA-Z]+|onconnection|getsockname|(read|recv)(Start|Stop)|writeQueueSize)\b|(?<=description === ')[^']+/g) ?? []
      const found = (await refused(text, 'packages/core/src/listeners/listen-hook.ts')).join(' ')
      for (const name of names) expect(found, `${file}: ${name}`).toContain(name)
    }
  })
})
