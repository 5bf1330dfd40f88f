/**
 * Clients of HTTPS over many reloads, with each suite of TLS 1.3: some ask all the time, some rarely, some post up to 200 KB, whose hash
 * comes back. None ever retries. On a chain through this Node and those of HANDOVER_TEST_NODES. `npm run soak:tls` is the long form: 300
 * clients and HANDOVER_TEST_RELOADS reloads (50) on each Node and on the chain.
 */

import { execFileSync } from 'node:child_process'
import { renameSync, symlinkSync } from 'node:fs'
import { type LoadOptions, type PostGroup, startLoadProcess } from '@handover/load'
import { expect, onTestFinished, test } from 'vitest'
import { accepted, drained, everyConnectionMoved, startGenerations } from '../helpers/peers.js'
import { Folder } from '../helpers/plan.js'

const isLong = process.env['HANDOVER_TLS_SOAK'] !== undefined
const nodes = [process.execPath, ...(process.env['HANDOVER_TEST_NODES'] ?? '').split(':').filter((binary) => binary !== '')]
const versions = nodes.map((node) => execFileSync(node, ['-p', 'process.version'], { encoding: 'utf8' }).trim())
/** At least one to each and back. */
const reloads = isLong ? Number(process.env['HANDOVER_TEST_RELOADS'] ?? 50) : Math.max(2, 2 * nodes.length - 2)
const suites = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']

const post = (clients: number, thinkMs: number, bytes: number, pauseMs = 0): PostGroup => ({ clients, thinkMs, bytes, pauseMs })
/** Of one suite. */
const [clients, traffic]: [number, LoadOptions] = isLong
  ? [100, {
      keepAlive: [{ clients: 1 }, { clients: 14, thinkMs: 60 }, { clients: 45, thinkMs: 5_000 }],
      post: [
        post(1, 0, 0), post(1, 0, 20_000), post(4, 60, 1), post(4, 60, 16_384, 20), post(4, 60, 16_385), post(4, 400, 200_000, 20),
        post(22, 5_000, 70_000)
      ]
    }]
  : [14, {
      keepAlive: [{ clients: 1 }, { clients: 2, thinkMs: 60 }, { clients: 4, thinkMs: 5_000 }],
      post: [post(1, 0, 0), post(2, 60, 1), post(2, 60, 16_385, 20), post(1, 400, 200_000, 20), post(1, 5_000, 70_000)]
    }]

const back = [...nodes.keys()].slice(1, -1).toReversed()
const chain = Array.from({ length: reloads + 1 }, (_, index) => [...nodes.keys(), ...back][index % (nodes.length + back.length)]!)
const runs: [name: string, through: readonly number[]][] = [
  ...(isLong ? versions.map((version, node): [string, number[]] => [version, chain.map(() => node)]) : []),
  ...(isLong && nodes.length === 1 ? [] : [[`a chain of ${versions.join(', ')}`, chain] satisfies [string, number[]]])
]

test.for(runs)(`%s: over ${reloads} reloads of ${3 * clients} TLS clients nothing is lost, nothing is closed, and every body is whole`, { timeout: 1_200_000 }, async ([name, through]) => {
  using folder = new Folder()
  const use = (node: number): void => {
    symlinkSync(nodes[node]!, folder.at('new'))
    renameSync(folder.at('new'), folder.at('node'))
  }
  use(through[0]!)
  const env = { PATH: `${folder.path}:${process.env['PATH'] ?? ''}` }
  await using generations = await startGenerations('https', env, 'node')
  const options = { connectFirst: true, answerTimeoutMs: 60_000, ...traffic }
  const loads = suites.map((ciphers) => startLoadProcess({ ...generations.targets[0]!, tls: true, ciphers }, options))
  onTestFinished(() => { for (const load of loads) load.kill() })
  await generations.until(() => accepted(generations) === 3 * clients)
  for (const load of loads) await load.until(({ answers }) => answers > clients)
  for (const node of through.slice(1)) {
    use(node)
    await generations.reload('signal')
    for (const load of loads) await load.until((stats) => stats.versions.some(({ version }) => version === String(generations.count)))
  }
  await drained(generations)
  const results = await Promise.all(loads.map((load) => load.stop()))

  const sum = (of: (result: typeof results[number]) => number): number => results.reduce((total, result) => total + of(result), 0)
  console.log(`${name}: ${reloads} reloads, ${sum(({ requests }) => requests)} requests, ${sum(({ lost }) => lost)} lost, ` +
    `${sum(({ closedByServer }) => closedByServer.total)} closed, ${sum(({ opened }) => opened)} opened by ${3 * clients} clients`)
  for (const { lost, losses, notes, closedByServer, opened } of results) {
    expect({ lost, losses, notes, closed: closedByServer.total, opened }).toEqual(
      { lost: 0, losses: [], notes: [], closed: 0, opened: clients }
    )
  }
  everyConnectionMoved(generations, 3 * clients)
  expect(accepted(generations)).toBe(3 * clients)
  const boots = generations.events.filter(({ event }) => event === 'boot').map(({ node }) => node)
  expect(new Set(boots)).toEqual(new Set(through.map((node) => versions[node])))
})
