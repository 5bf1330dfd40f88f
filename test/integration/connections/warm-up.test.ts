/**
 * What a spare does before it waits: Node's code and ours serve requests of its own, and nothing of them is left. In processes of their
 * own, whose event loop does not run yet, over this Node and those of HANDOVER_TEST_NODES.
 */

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { internalFile } from '../../helpers/built.js'
import { waitFor } from '../../helpers/program.js'

const nodes = [process.execPath, ...(process.env['HANDOVER_TEST_NODES'] ?? '').split(':').filter((binary) => binary !== '')]

interface Seen {
  readonly answered: number
  readonly before: unknown
  readonly after: unknown
  /** What was thrown, as text; of the second one, too. */
  readonly thrown: readonly string[]
}

/** `first` runs before the program; each case has a process. */
async function warmed(node: string, first = ''): Promise<Seen> {
  const program = `${first}
    const { warmUp } = require(${JSON.stringify(internalFile)})
    const { channel } = require('node:diagnostics_channel')
    let answered = 0
    channel('http.server.response.finish').subscribe(() => { answered++ })
    const seen = () => [require('node:fs').readdirSync('/proc/self/fd'), process.getActiveResourcesInfo().sort()]
    const thrown = [String(warmUp().thrown)] // libuv opens /dev/null once, for its first stream
    const before = seen()
    thrown.push(String(warmUp().thrown))
    const after = seen()
    process.on('exit', () => { console.log(JSON.stringify({ answered, before, after, thrown })) })`
  const { stdout, stderr } = await promisify(execFile)(node, ['-e', program], { timeout: 60_000 })
  expect(stderr).toBe('')
  return JSON.parse(stdout) as Seen
}

describe.runIf(process.platform === 'linux').each(nodes)('with %s a warm-up', (node) => {
  test('answers requests, keeps no descriptor or handle of them, and lets the process end', async () => {
    const { answered, before, after, thrown } = await warmed(node)
    expect(thrown).toEqual(['undefined', 'undefined'])
    expect(answered).toBeGreaterThan(100)
    expect(after).toEqual(before)
  })

  test.each([
    'Object.defineProperty(process, "_tickCallback", { value: undefined })',
    'Object.defineProperty(require("node:net"), "_createServerHandle", { value: undefined })'
  ])('does nothing where this Node has another inside: %s', async (first) => {
    const { answered, before, after } = await warmed(node, first)
    expect(answered).toBe(0)
    expect(after).toEqual(before)
  })
})

// Which functions V8 compiles, and how it says so, is that of this Node.
test('what is compiled stays for a client that pipelines', async () => {
  // Without pipelined requests in the warm-up they are twice as many.
  expect(await thrownAwayFor(4)).toBeLessThan(1.6 * await thrownAwayFor(1))
})

/** How many functions V8 throws away while a client is answered that asks 500 times for so many answers at once. */
async function thrownAwayFor(depth: number): Promise<number> {
  const program = `require(${JSON.stringify(internalFile)}).warmUp()
    require('node:v8').setFlagsFromString('--trace-deopt')
    require('node:http').createServer((request, response) => { response.end('ok') })
      .listen(0, '127.0.0.1', function () { console.log('port ' + this.address().port + '.') })`
  const server = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    let said = ''
    server.stdout.setEncoding('utf8').on('data', (text: string) => { said += text })
    await waitFor(() => /port \d+\./.test(said))
    const client = net.connect(Number(/port (\d+)\./.exec(said)![1]), '127.0.0.1')
    let answers = 0
    client.setEncoding('latin1').on('data', (text: string) => { answers += text.split('200 OK').length - 1 })
    for (let turn = 1; turn <= 500; turn++) {
      client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(depth))
      while (answers < turn * depth) await setImmediate()
    }
    client.destroy()
    return said.split('bailout (kind').length - 1
  } finally {
    server.kill()
    await once(server, 'exit')
  }
}
