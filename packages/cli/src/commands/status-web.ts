/**
 * `handover status --web`: the status as a page that renews itself, until ctrl-C. It can only be read, by processes of this user (and root)
 * on this machine, and by whoever has the token in the address that is printed.
 */

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { chooseApp } from '../client/choose-app.js'
import { findApps, silencesBeside } from '../client/find-apps.js'
import type { HostAndPort } from '../command-line/arguments.js'
import { Failure } from '../failure.js'
import { livePage, livePart, liveScript } from '../report/page.js'
import { sheetsOf } from './status-text.js'
import { userOf } from './peer-user.js'

/** Several readers are one question to the apps. */
const freshMs = 500

const fields = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff'
}

const refused = 'This page is for processes of the same user on this machine, or with the token that handover status --web printed.\n'

/** Answers the exit status when ctrl-C ends it. Throws a Failure if it cannot listen there. */
export async function serveStatus(address: HostAndPort, target: string | undefined): Promise<number> {
  const token = randomBytes(24).toString('base64url')
  const isAllowed = gate(token)
  const look = looker(target)
  const server = http.createServer((request, response) => {
    const answer = (status: number, type: string, body: string): void => {
      const more = { 'content-type': `text/${type}; charset=utf-8`, ...(status === 405 && { allow: 'GET, HEAD' }) }
      response.writeHead(status, { ...fields, ...more })
      response.end(request.method === 'HEAD' ? undefined : body)
    }
    const serve = async (): Promise<void> => {
      const { pathname, search } = new URL(request.url ?? '/', 'http://localhost')
      if (!await isAllowed(request)) answer(403, 'plain', refused)
      else if (!['GET', 'HEAD'].includes(request.method ?? '')) answer(405, 'plain', 'This page can only be read.\n')
      else if (pathname === '/') answer(200, 'html', livePage(await look(), search))
      else if (pathname === '/live') answer(200, 'html', await look())
      else if (pathname === '/live.js') answer(200, 'javascript', liveScript)
      else answer(404, 'plain', 'There is no such page.\n')
    }
    serve().catch(() => { response.destroy() })
  })
  server.listen(address.port, address.host)
  await once(server, 'listening').catch((error: unknown) => {
    throw new Failure({ what: `cannot listen on port ${address.port} of ${address.host} (${(error as NodeJS.ErrnoException).code})`, todo: 'Choose another; port 0 is any' }, { command: 'status' })
  })
  const { address: host, port } = server.address() as AddressInfo
  process.stdout.write(`http://${host.includes(':') ? `[${host}]` : host}:${port}/?token=${token}\n`)
  process.stderr.write('Read-only, until ctrl-C. Processes of this user on this machine need no token.\n')
  await once(process, 'SIGINT')
  server.close()
  server.closeAllConnections()
  return 0
}

/** Whether a request may be answered. */
function gate(token: string): (request: http.IncomingMessage) => Promise<boolean> {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  const wanted = digest(token)
  const mine = process.getuid?.()
  const known = new WeakMap<Socket, Promise<boolean>>()
  const isOwn = async (socket: Socket): Promise<boolean> => {
    const uid = await userOf(socket)
    return uid !== undefined && mine !== undefined && (uid === mine || uid === 0)
  }
  return async ({ url, headers: { host = '' }, socket }) => {
    const given = new URL(url ?? '/', 'http://localhost').searchParams.get('token')
    if (given !== null) return timingSafeEqual(digest(given), wanted)
    // A foreign page in a browser of this user may have its name lead here, but not change this.
    if (!/^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/.test(host)) return false
    const own = known.get(socket) ?? isOwn(socket)
    known.set(socket, own)
    return await own
  }
}

/** What the page shows now. */
function looker(target: string | undefined): () => Promise<string> {
  let last: { readonly at: number; readonly found: Promise<string> } | undefined
  const find = async (): Promise<string> => {
    try {
      const found = await findApps()
      const apps = target === undefined ? found.apps : [chooseApp(found, target)]
      const silent = silencesBeside(found, apps).join('. ')
      return livePart(apps, sheetsOf(apps, Date.now()), apps.length > 0 ? silent : `No app runs (looked in ${found.looked}). ${silent}`)
    } catch (error) {
      return livePart([], [], (error as Error).message)
    }
  }
  return async () => {
    if (!last || performance.now() - last.at > freshMs) last = { at: performance.now(), found: find() }
    return await last.found
  }
}
