/**
 * `handover status --web`: a page that renews itself, that only this user and the token get, and in which nothing of the app is obeyed; as
 * Chromium shows it. HANDOVER_SCREENSHOTS=FOLDER keeps the picture.
 */

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { get } from '../../helpers/ask.js'
import { Browser } from '../../helpers/browser.js'
import type { Running } from '../../helpers/command.js'
import { livePage, livePart, userIn } from '../../helpers/internals.js'
import { Keeping } from '../../helpers/keeping.js'
import { waitFor } from '../../helpers/program.js'

const noChromium = spawnSync('chromium', ['--version']).error !== undefined
const isRoot = process.getuid?.() === 0

class Web implements AsyncDisposable {
  readonly running: Running

  constructor(app: Keeping, ...words: string[]) {
    this.running = app.begin('status', '--web', '127.0.0.1:0', ...words)
  }

  /** With the token. */
  async url(): Promise<string> {
    const { output } = this.running
    await waitFor(() => output.stdout.includes('\n'))
    expect(output.stdout).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]{32}\n$/)
    return output.stdout.trim()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.running.child.kill('SIGKILL')
    await this.running.ended
  }
}

/** What another user gets there. */
function asNobody(url: string): string {
  const script = `fetch(${JSON.stringify(url)}).then(async (answer) => console.log(answer.status, await answer.text()))`
  return spawnSync(process.execPath, ['-e', script], { uid: 65_534, gid: 65_534, encoding: 'utf8' }).stdout
}

describe('handover status --web', () => {
  it('is read by this user without a token, and can only be read; ctrl-C ends it', async () => {
    await using app = await Keeping.start()
    await using web = new Web(app)
    const url = new URL(await web.url())
    const port = Number(url.port)
    expect(await get({ port }, '/')).toMatchObject({ status: 200, body: expect.stringMatching(/^<!doctype html>[^]*kept[^]*serving/) })
    expect(await get({ port }, '/live')).toMatchObject({ status: 200, body: expect.stringContaining(String((await app.serves())[0])) })
    expect(await get({ port }, '/secret')).toMatchObject({ status: 404 })
    expect((await fetch(new URL('/', url), { method: 'POST' })).status).toBe(405)
    expect((await fetch(url, { method: 'HEAD' })).headers.get('content-security-policy')).toMatch(/default-src 'none'.*frame-ancestors 'none'/)
    web.running.child.kill('SIGINT')
    expect(await web.running.ended).toMatchObject({ status: 0 })
  })

  it('refuses a wrong token, and a name that another page has led here', async () => {
    await using app = await Keeping.start()
    await using web = new Web(app)
    const url = new URL(await web.url())
    expect((await fetch(new URL('/?token=wrong', url))).status).toBe(403)
    const socket = net.connect(Number(url.port), '127.0.0.1')
    socket.end('GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n')
    expect(String(Buffer.concat(await socket.toArray() as Buffer[]))).toMatch(/^HTTP\/1\.1 403 [^]*same user/)
  })

  it.runIf(isRoot)('refuses another user who has no token', async () => {
    await using app = await Keeping.start()
    await using web = new Web(app)
    const url = await web.url()
    expect(asNobody(url.replace(/\?.*/, ''))).toMatch(/^403 .*same user/)
    expect(asNobody(url)).toMatch(/^200 <!doctype html>[^]*serving/)
  })

  it('says where it cannot listen, and goes without --watch and --json', async () => {
    await using app = await Keeping.start()
    const server = net.createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    expect(await app.run('status', '--web', String(port))).toMatchObject({ status: 1, stdout: '', stderr: `handover status: cannot listen on port ${port} of 127.0.0.1 (EADDRINUSE). Choose another; port 0 is any.\n` })
    server.close()
    expect(await app.run('status', '--web', '0', '--watch')).toMatchObject({ status: 2 })
  })

  it.skipIf(noChromium)(`is seen in Chromium, and follows a reload${noChromium ? ' (skipped: no chromium here)' : ''}`, { timeout: 120_000 }, async () => {
    await using app = await Keeping.start({ workers: 2 })
    await using web = new Web(app)
    const url = (await web.url()).replace(/\?.*/, '')
    await using browser = await Browser.start(url)
    await browser.resize(1000, 900)
    await browser.goTo(url)
    const text = (): Promise<string> => browser.evaluate<string>('document.body.innerText')
    expect(await text()).toMatch(/^kept\n[^]*listens[^]*STATE[^]*serving[^]*It was not reloaded yet/)
    expect((await app.run('reload', '--bake', '0', '--wait')).status).toBe(0)
    await waitFor(async () => /Reloaded in \d/.test(await text()))
    for (const pid of await app.serves()) expect(await text()).toContain(String(pid))
    expect(await browser.evaluate<number>(`document.querySelectorAll('svg rect').length`)).toBeGreaterThan(4)
    const picture = await browser.screenshot()
    const folder = process.env['HANDOVER_SCREENSHOTS']
    if (folder) writeFileSync(path.join(folder, 'status-web.png'), picture)
    web.running.child.kill('SIGINT')
    expect(await web.running.ended).toMatchObject({ status: 0 })
    await waitFor(async () => (await text()).includes('does not answer'))
    expect(browser.complaints).toEqual([])
    expect(await coloursOf(browser, picture)).toBeGreaterThan(20)
  })
})

/** How many colours a picture has: a blank one has one. The browser reads its own PNG. */
async function coloursOf(browser: Browser, picture: Buffer): Promise<number> {
  await browser.goTo('about:blank')
  return await browser.evaluate<number>(`new Promise((resolve) => {
    const image = new Image()
    image.onload = () => {
      const canvas = Object.assign(document.createElement('canvas'), { width: image.width, height: image.height })
      const context = canvas.getContext('2d')
      context.drawImage(image, 0, 0)
      resolve(new Set(new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer)).size)
    }
    image.src = 'data:image/png;base64,${picture.toString('base64')}'
  })`)
}

it('nothing that the app says becomes a part of the page', () => {
  const bad = `"'><script>alert(1)</script><img src=x onerror=alert(1)>`
  const sheet = { title: bad, facts: [{ label: bad, text: bad }], heads: [{ head: bad, align: 'left' as const }], rows: [{ cells: [bad], details: [bad] }] }
  const lastReload = { ok: false, at: 0, ms: 1, switched: [], reports: [], serving: [], error: { code: bad, message: bad, stderr: bad } }
  const app = { name: bad, keeper: null, service: null, processes: [], lastReload }
  for (const html of [livePart([app], [sheet], bad), livePage('', `?token=${bad}`)]) expect(html).not.toMatch(/<script>|<img|'>|">"/)
})

it('finds the user of a loopback connection among all, and no user of a closed one', () => {
  const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n'
  const row = (local: string, remote: string, state: string, uid: number): string =>
    `   1: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  ${uid}        0 12345 1 0000000000000000 20 4 30 10 -1\n`
  const four = { remoteAddress: '127.0.0.1', remotePort: 40_000, localAddress: '127.0.0.1', localPort: 9_000 }
  const six = { remoteAddress: '::1', remotePort: 40_000, localAddress: '::1', localPort: 9_000 }
  const [client, server] = ['0100007F:9C40', '0100007F:2328']
  const one = '00000000000000000000000001000000'
  const mapped = '0000000000000000FFFF00000100007F'
  // The server's own end stands there, too.
  expect(userIn(head + row(server, client, '01', 7) + row(client, server, '01', 1_000), four)).toBe(1_000)
  expect(userIn(head + row(client, server, '06', 0), four)).toBeUndefined()
  expect(userIn(head + row(`${one}:9C40`, `${one}:2328`, '01', 1_001), six)).toBe(1_001)
  expect(userIn(head + row(`${mapped}:9C40`, `${mapped}:2328`, '01', 1_002), four)).toBe(1_002)
  expect(userIn(head + row(client, server, '01', 1_000), { ...four, remoteAddress: '10.0.0.1' })).toBeUndefined()
  expect(userIn('', four)).toBeUndefined()
})
