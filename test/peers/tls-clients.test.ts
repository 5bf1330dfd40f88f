/**
 * Other people's clients of TLS over reloads: each keeps its one connection, and every request is answered on it. A program
 * that is not installed is skipped.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { Moving } from '../helpers/moving.js'
import { compileGo, installed } from '../helpers/peers.js'
import { Folder } from '../helpers/plan.js'
import { waitFor } from '../helpers/program.js'

const reloads = Math.min(3, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 3))
const urlOf = (moving: Moving): string => `https://127.0.0.1:${(moving.address as { port: number }).port}`

/** Reloads, each when the client has had an answer of the present version; `had` answers which versions have answered. */
async function overReloads(moving: Moving, had: (generation: number) => Promise<unknown>): Promise<void> {
  await had(1)
  for (let generation = 2; generation <= reloads + 1; generation++) {
    await moving.reload()
    await had(generation)
  }
}

/** A client that writes the bodies of its answers. */
class Talker {
  readonly #child
  #hasEnded = false
  text = ''
  readonly ended: Promise<unknown>

  constructor(file: string, args: readonly string[]) {
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => { this.text += text })
    this.#child.stdin.on('error', () => undefined)
    this.ended = once(this.#child, 'close').then(([code]) => {
      this.#hasEnded = true
      return code as unknown
    })
    onTestFinished(() => { this.#child.kill('SIGKILL') })
  }

  write(text: string): void { this.#child.stdin.write(text) }

  end(): void { this.#child.stdin.end() }

  async said(pattern: string, times = 1): Promise<void> {
    const isSaid = (): boolean => this.text.split(pattern).length > times
    await waitFor(() => isSaid() || this.#hasEnded)
    if (!isSaid()) throw new Error(`it ended without ${pattern}: ${this.text}`)
  }
}

const python = `
import hashlib, http.client, os, ssl, sys
context = ssl._create_unverified_context()
connection = http.client.HTTPSConnection('127.0.0.1', int(sys.argv[1]), context=context, timeout=60)
connection.connect()
first = connection.sock
count = 0
for line in sys.stdin:
    body = os.urandom(count * 7919 % 100000)
    connection.request('POST', '/hash', body)
    answer = connection.getresponse().read().decode()
    assert answer == '%d %s' % (len(body), hashlib.sha256(body).hexdigest()), answer
    connection.request('GET', '/')
    print(connection.getresponse().read().decode(), flush=True)
    assert connection.sock is first
    count += 1
print('end', count)
`

const go = `
package main
import ("bufio"; "bytes"; "crypto/sha256"; "crypto/tls"; "fmt"; "io"; "net"; "net/http"; "os")
func main() {
	dials := 0
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxConnsPerHost: 1, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	transport.Dial = func(network, address string) (net.Conn, error) { dials++; return net.Dial(network, address) }
	client := &http.Client{Transport: transport}
	read := func(answer *http.Response, err error) string {
		if err != nil { panic(err) }
		body, err := io.ReadAll(answer.Body)
		if err != nil { panic(err) }
		answer.Body.Close()
		return string(body)
	}
	lines := bufio.NewScanner(os.Stdin)
	for count := 0; lines.Scan(); count++ {
		body := bytes.Repeat([]byte{byte(count)}, count * 7919 % 100000)
		if got, want := read(client.Post(os.Args[1] + "/hash", "text/plain", bytes.NewReader(body))), fmt.Sprintf("%d %x", len(body), sha256.Sum256(body)); got != want { panic(got) }
		fmt.Println(read(client.Get(os.Args[1] + "/")))
		if dials != 1 { panic(dials) }
	}
}
`

/** Reads a line for each request that it is to make. */
async function keepsItsConnection(moving: Moving, client: Talker): Promise<void> {
  await overReloads(moving, async (generation) => {
    if (generation > 1) await moving.arrived(1, generation)
    client.write('go\n')
    await client.said(`generation ${generation} answers`)
  })
  client.end()
  expect(await client.ended, client.text).toBe(0)
  expect(await moving.report()).toMatchObject({ connections: { open: 1, moved: 1, drained: 0, stayed: {} } })
}

test(`Python's ssl: one connection over ${reloads} reloads`, async ({ skip }) => {
  const file = installed('python3')
  if (file === undefined) return skip('python3 is not installed')
  const moving = await Moving.start({ kind: 'https' })
  await keepsItsConnection(moving, new Talker(file, ['-c', python, String(new URL(urlOf(moving)).port)]))
})

test(`Go's crypto/tls: one connection over ${reloads} reloads`, { timeout: 180_000 }, async ({ skip }) => {
  const file = installed('go')
  if (file === undefined) return skip('go is not installed')
  using folder = new Folder()
  const program = compileGo(file, go, folder)
  const moving = await Moving.start({ kind: 'https' })
  await keepsItsConnection(moving, new Talker(program, [urlOf(moving)]))
})

test('curl: all URLs of one run over one connection, with a reload in each slow answer', async ({ skip }) => {
  const file = installed('curl')
  if (file === undefined) return skip('curl is not installed')
  const moving = await Moving.start({ kind: 'https' })
  using folder = new Folder()
  writeFileSync(folder.at('body'), Buffer.alloc(150_000, 'x'))
  const body = ['--data-binary', `@${folder.at('body')}`]
  const urls = ['/held', '/', '/held?2', '/', '/held?3', '/'].flatMap((url, index) => [
    ...(index === 0 ? [] : ['--next']), '-sSkN', '--http1.1', '-w', ' %{num_connects} connects\n', ...(url === '/' ? body : []), urlOf(moving) + url
  ])
  const client = new Talker(file, urls)
  for (const [index, url] of ['/held', '/held?2', '/held?3'].entries()) {
    await moving.began(url)
    await moving.reload()
    moving.release(index + 1)
    await client.said(`generation ${index + 2} answers /`)
  }
  expect(await client.ended, client.text).toBe(0)
  expect(client.text.match(/\d connects/g)).toEqual(['1 connects', ...Array.from({ length: 5 }, () => '0 connects')])
})

test.for(['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'])(
  'openssl s_client with %s and padded records: keys are changed in both directions before and after each move', async (suite, { skip }) => {
    const file = installed('openssl')
    if (file === undefined) return skip('openssl is not installed')
    const moving = await Moving.start({ kind: 'https' })
    const client = new Talker(file, ['s_client', '-connect', urlOf(moving).slice(8), '-ciphersuites', suite, '-record_padding', '512', '-crlf'])
    let asked = 0
    let updates = 0
    const ask = async (generation: number): Promise<void> => {
      client.write(`GET /?${++asked} HTTP/1.1\nHost: a\n\n`)
      await client.said(`generation ${generation} answers /?${asked}`)
    }
    await overReloads(moving, async (generation) => {
      if (generation > 1) await moving.arrived(1, generation)
      await ask(generation)
      for (const key of ['K', 'k', 'K', 'K']) {
        client.write(`${key}\n`)
        await client.said('KEYUPDATE', ++updates)
        await ask(generation)
      }
    })
    expect(await moving.report()).toMatchObject({ connections: { open: 1, moved: 1, drained: 0, stayed: {} } })
  }
)

test('openssl s_client that takes records of 512 bytes gets no longer ones after a move', async ({ skip }) => {
  const file = installed('openssl')
  if (file === undefined) return skip('openssl is not installed')
  const moving = await Moving.start({ kind: 'https' })
  const client = new Talker(file, ['s_client', '-connect', urlOf(moving).slice(8), '-maxfraglen', '512', '-crlf', '-nocommands', '-quiet'])
  await overReloads(moving, async (generation) => {
    if (generation > 1) await moving.arrived(1, generation)
    client.write(`GET /?${'x'.repeat(5_000)}${generation} HTTP/1.1\nHost: a\n\n`)
    await client.said(`${'x'.repeat(5_000)}${generation}`)
  })
  expect(client.text).toContain('generation 2 answers')
})
