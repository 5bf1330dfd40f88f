/**
 * Other people's clients of HTTP/2 over reloads: gRPC (@grpc/grpc-js on both sides, in the clear and over TLS, under `handover run` without
 * a change to the server), curl, nghttp and Go. Their connections stay, nobody hears GOAWAY, and every answer comes. h2load is in
 * tools.test.ts. A client that is not installed is skipped.
 */

import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import net, { type AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { Generations } from '../helpers/generations.js'
import { Keeping } from '../helpers/keeping.js'
import { compileGo, drained, installed, portOf, Tool } from '../helpers/peers.js'
import { Folder } from '../helpers/plan.js'
import { programPath, waitFor } from '../helpers/program.js'

const reloads = Math.max(2, Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10)))
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

async function start(settings: object, kind = 'h2c'): Promise<Generations> {
  const env = { KIND: kind, PRINT: '1', SETTINGS: JSON.stringify(settings), OPTIONS: JSON.stringify({ undoWindow: 100, drainTimeout: 30_000 }) }
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

const go = `
package main
import ("bytes"; "crypto/sha256"; "crypto/tls"; "fmt"; "io"; "net/http"; "os"; "time")
func main() {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
	stop := make(chan bool)
	go func() { io.ReadAll(os.Stdin); close(stop) }()
	for count := 0; ; count++ {
		select { case <-stop: fmt.Println("answers", count); return; default: }
		body := bytes.Repeat([]byte{byte(count)}, count * 7919 % 100000)
		answer, err := client.Post(fmt.Sprintf("%s/?bytes=%d", os.Args[1], count * 997 % 50000), "text/plain", bytes.NewReader(body))
		if err != nil { panic(err) }
		found, err := io.ReadAll(answer.Body)
		if err != nil { panic(err) }
		answer.Body.Close()
		hash := fmt.Sprintf("%x", sha256.Sum256(body))
		if answer.ProtoMajor != 2 || len(found) != count * 997 % 50000 || answer.Header.Get("x-hash") != hash { panic(count) }
		time.Sleep(time.Duration(count % 3 * 10) * time.Millisecond)
	}
}
`

// Before 1.20 Go goes on with a table that it was told to give up: such a session ends, and no request is lost.
test("Go's http2 over TLS: every request is answered", { timeout: 180_000 }, async ({ skip }) => {
  const file = installed('go')
  if (file === undefined) return skip('go is not installed')
  using folder = new Folder()
  const program = compileGo(file, go, folder)
  await using generations = await start({}, 'h2')
  const client = spawn(program, [`https://127.0.0.1:${portOf(generations)}`], { stdio: ['pipe', 'pipe', 'pipe'] })
  const output = Promise.all([client.stdout.toArray(), client.stderr.toArray()])
  const asked = (): number => generations.events.filter(({ event, generation }) => event === 'request' && generation === generations.count).length
  // A client that has failed ends, and the server may have nothing more to say.
  const running = (): boolean => client.exitCode !== null || asked() > 20
  await waitFor(running)
  for (let index = 0; index < 3; index++) {
    await generations.reload('signal')
    await waitFor(running)
  }
  client.stdin.end()
  const [said, errors] = await output
  expect(String(said), String(errors)).toMatch(/^answers \d+$/m)
  for (const { connections } of await drained(generations)) expect(connections).toMatchObject({ cut: 0 })
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
