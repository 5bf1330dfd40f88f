/**
 * Other people's clients of HTTP/2 over reloads: gRPC (@grpc/grpc-js on both sides, in the clear and over TLS, under `handover run` without a change to
 * the server), curl and nghttp. Their connections stay, nobody hears GOAWAY, and every answer comes. h2load is in tools.test.ts. A client
 * that is not installed is skipped.
 */

import { createRequire } from 'node:module'
import net, { type AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { Generations } from '../helpers/generations.js'
import { Keeping } from '../helpers/keeping.js'
import { drained, installed, portOf, Tool } from '../helpers/peers.js'
import { programPath, waitFor } from '../helpers/program.js'

const reloads = Math.max(3, Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10)))
const limit = { timeout: 120_000 }

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

interface GrpcSeen {
  readonly answers: number
  readonly cancelled: number
  readonly late: number
  readonly wrong: string[]
  readonly pids: number[]
  readonly goaways: number
  readonly connects: number
}

/** The last whole line of what the client has said. */
function seenBy({ output }: Tool): GrpcSeen | undefined {
  const line = output.slice(0, output.lastIndexOf('\n')).split('\n').at(-1)
  if (line === undefined || line === '') return undefined
  try {
    return JSON.parse(line) as GrpcSeen
  } catch {
    throw new Error(output)
  }
}

test.for(['in the clear', 'over TLS, with pings'])(`gRPC %s, both sides @grpc/grpc-js: ${reloads} reloads without a call that fails, a GOAWAY or a second connection`, limit, async (kind, { skip }) => {
  const secure = kind === 'in the clear' ? {} : { TLS: '1' }
  try {
    createRequire(import.meta.url).resolve('@grpc/grpc-js')
  } catch {
    return skip('@grpc/grpc-js is not installed')
  }
  const port = await freePort()
  await using app = await Keeping.start({ program: 'grpc.mjs', env: { PORT: String(port), HANDOVER_UNDO_WINDOW: '100', ...secure } })
  await using client = Tool.start(process.execPath, [programPath('grpc.mjs'), 'client', `127.0.0.1:${port}`], secure)
  const until = (isSo: (seen: GrpcSeen) => boolean): Promise<void> => waitFor(() => {
    const seen = seenBy(client)
    if (!client.running || (seen && seen.wrong.length > 0)) throw new Error(client.output.slice(-2_000))
    return seen !== undefined && isSo(seen)
  })
  await until(({ answers }) => answers > 50)
  for (let index = 1; index <= reloads; index++) {
    expect(await app.reload('--bake', '0', '--wait')).toMatchObject({ ok: true })
    await until(({ pids }) => pids.length > index)
  }
  const [pid] = await app.serves()
  await app.onlyLives([pid!])
  await until(({ pids }) => pids.includes(pid!))
  await client.interrupt()
  const { answers, cancelled, late, ...seen } = seenBy(client)!
  console.log(`gRPC ${kind}: ${reloads} reloads, ${answers} calls answered, ${cancelled} cancelled, ${late} past their deadline, ${JSON.stringify(seen)}`)
  expect(seen).toMatchObject({ wrong: [], goaways: 0, connects: 8 })
  expect([answers > 100, cancelled > 10, late > 10]).toEqual([true, true, true])
})

async function start(settings: object): Promise<Generations> {
  const env = { KIND: 'h2c', PRINT: '1', SETTINGS: JSON.stringify(settings), OPTIONS: JSON.stringify({ undoWindow: 100, drainTimeout: 30_000 }) }
  return await Generations.start({ script: programPath('sessions.mjs'), listen: '127.0.0.1:0', env })
}

/** Reloads while the client asks one thing after the other on its one session. */
async function over(generations: Generations, client: Tool): Promise<void> {
  const asked = (): number => generations.events.filter(({ event, generation }) => event === 'request' && generation === generations.count).length
  await generations.until(() => asked() > 5)
  for (let index = 0; index < 3; index++) {
    await generations.reload('signal')
    await generations.until(() => asked() > 5)
  }
  expect(client.running, client.output).toBe(true)
  for (const { connections } of await drained(generations)) expect(connections).toMatchObject({ open: 1, moved: 1, stayed: {} })
}

test('curl --http2-prior-knowledge: every answer comes whole, also one that takes longer than a reload', limit, async ({ skip }) => {
  const file = installed('curl')
  if (file === undefined) return skip('curl is not installed')
  await using generations = await start({})
  const url = `http://127.0.0.1:${portOf(generations)}`
  // curl 7.88 cannot use a connection twice that it began with prior knowledge, with a server of Node alone either.
  const curl = async (path: string): Promise<string> => {
    const form = '%{http_version} %{response_code} %{size_download}'
    await using one = Tool.start(file, ['-sS', '--http2-prior-knowledge', '-o', '/dev/null', '-w', form, url + path])
    await one.ended
    return one.output
  }
  let [stopping, answers] = [false, 0]
  const users = [0, 1, 2].map(async (user) => {
    for (; !stopping; answers++) expect(await curl(`/?bytes=300000&ms=${user * 40}`)).toBe('2 200 300000')
  })
  for (let index = 0; index < 2; index++) {
    const slow = curl('/?bytes=100000&ms=2500')
    await generations.until(() => generations.events.some(({ url: asked, generation }) => generation === index + 1 && String(asked).endsWith('2500')))
    await generations.reload('signal')
    expect(await slow).toBe('2 200 100000')
  }
  stopping = true
  await Promise.all(users)
  for (const { connections } of await drained(generations)) expect(connections).toMatchObject({ cut: 0, stayed: {} })
  expect(answers).toBeGreaterThan(20)
})

test('nghttp: one session, on which every stream is answered through three reloads', limit, async ({ skip }) => {
  const file = installed('nghttp')
  if (file === undefined) return skip('nghttp is not installed (Debian: nghttp2-client)')
  // So it asks for the next when it has the answer before.
  await using generations = await start({ maxConcurrentStreams: 1 })
  const urls = Array.from({ length: 120 }, (_, index) => `http://127.0.0.1:${portOf(generations)}/?bytes=20000&ms=40&n=${index}`)
  await using nghttp = Tool.start(file, ['-nv', '--no-dep', '-M', '1', ...urls])
  await over(generations, nghttp)
  expect(await nghttp.ended, nghttp.output.slice(-2_000)).toBe(0)
  expect(nghttp.output.match(/recv \(stream_id=\d+\) :status: 200/g)).toHaveLength(120)
  expect(nghttp.output).not.toMatch(/recv (GOAWAY|RST_STREAM)/)
})
