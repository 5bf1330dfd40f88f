/**
 * Behind a reverse proxy that keeps its connections to the server: nginx and HAProxy, as they are installed. Neither may try a request
 * twice, so that whatever goes wrong behind them is a 502 or 503 to the strict client. Each speaks plain HTTP with the server, and HTTPS. A
 * proxy that is not installed is skipped.
 */

import http from 'node:http'
import { type LoadOptions, startLoadProcess } from '@handover/load'
import { expect, onTestFinished, test } from 'vitest'
import {
  accepted, drained, everyConnectionMoved, installed, eachClientKeptItsConnection, portOf, reload, startGenerations
} from '../helpers/peers.js'
import { proxyNames, startProxy } from '../helpers/proxies.js'

const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))
const clients = 40

const thinking = [{ clients: 4 }, { clients: 16, thinkMs: 30 }]
const traffic: LoadOptions = { keepAlive: thinking, post: thinking.map((group) => ({ ...group, pauseMs: 0 })) }

/** So many requests at the same time that the proxy needs a connection to the server for each. */
async function atOnce(socketPath: string, count: number): Promise<void> {
  const agent = new http.Agent({ maxSockets: Infinity })
  await Promise.all(Array.from({ length: count }, () => new Promise<void>((resolve, reject) => {
    http.get({ socketPath, path: '/slow?ms=1500', agent }, (answer) => { answer.resume().once('end', resolve) }).once('error', reject)
  })))
}

const runs = proxyNames.flatMap((name) => (['http', 'https'] as const).map((kind) => ({ name, kind })))

test.for(runs)('behind $name ($kind): no 502 or 503, nothing lost, and the connections to the server stay the same over all reloads', { timeout: 300_000 }, async ({ name, kind }, { skip }) => {
  const file = installed(name)
  if (file === undefined) return skip(`${name} is not installed`)
  await using generations = await startGenerations(kind)
  const { proxy, front } = await startProxy(name, file, portOf(generations), kind)
  while (accepted(generations) < clients) await atOnce(front, clients)
  const before = accepted(generations)

  const load = startLoadProcess({ path: front }, traffic)
  onTestFinished(() => { load.kill() })
  await load.until((stats) => stats.answers > 200)
  await reload(generations, reloads, ['signal'], () => load.until(({ versions }) => versions.some(({ version }) => version === String(generations.count))))
  await drained(generations)
  const result = await load.stop()

  console.log(`${name} (${kind}): ${reloads} reloads, ${result.requests} requests, ${result.lost} lost, ${result.closedByServer.total} closed, ` +
    `connections to the server: ${before} before the first reload, ${accepted(generations)} in total`)
  eachClientKeptItsConnection(result)
  expect(accepted(generations)).toBe(before)
  everyConnectionMoved(generations, before)
  expect(proxy.running, proxy.output).toBe(true)
})
