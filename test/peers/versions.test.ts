/**
 * A chain of generations of which each runs under another version of Node: upgrades and the ways back, from each version to each other.
 * The program is started as `node` through PATH, where a link leads to another binary before every reload.
 * HANDOVER_TEST_NODES: the other Node binaries, separated by colons. Without it the test is skipped.
 */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type LoadOptions, startLoadProcess } from '@handover/load'
import { expect, onTestFinished, test } from 'vitest'
import { accepted, drained, everyConnectionMoved, eachClientKeptItsConnection, startGenerations } from '../helpers/peers.js'

const others = (process.env['HANDOVER_TEST_NODES'] ?? '').split(':').filter((binary) => binary !== '')
const binaries = [process.execPath, ...others]

/** A round through all of them that goes each step from one to another once (Hierholzer): with four, twelve steps. */
function round(count: number): number[] {
  const left = Array.from({ length: count }, (_, from) => Array.from({ length: count }, (_, to) => to).filter((to) => to !== from))
  const found: number[] = []
  const walk = (at: number): void => {
    for (let next = left[at]!.pop(); next !== undefined; next = left[at]!.pop()) walk(next)
    found.unshift(at)
  }
  walk(0)
  return found
}

const thinking = [{ clients: 2 }, { clients: 40, thinkMs: 60 }, { clients: 58, thinkMs: 5_000 }]
const traffic: LoadOptions = { connectFirst: true, keepAlive: thinking, post: thinking.map(
  (group) => ({ ...group, bytes: 1_000, pauseMs: 0 })
) }

const title = others.length > 0 ? `over ${binaries.length} versions of Node, from each to each other,` : 'over several versions of Node (skipped: HANDOVER_TEST_NODES names no other Node binaries),'

test.skipIf(others.length === 0)(`${title} nothing is lost, nothing is closed and 200 clients keep their connections`, { timeout: 300_000 }, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-node-'))
  onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
  const link = path.join(folder, 'node')
  const use = (binary: string): void => {
    symlinkSync(binary, `${link}.new`)
    renameSync(`${link}.new`, link)
  }
  const steps = round(binaries.length)
  const versions = binaries.map((binary) => execFileSync(binary, ['-p', 'process.version'], { encoding: 'utf8' }).trim())
  expect(new Set(versions).size, `different versions among ${versions.join(', ')}`).toBe(binaries.length)

  use(binaries[steps[0]!]!)
  await using generations = await startGenerations('http', { PATH: `${folder}:${process.env['PATH'] ?? ''}` }, 'node')
  const load = startLoadProcess(generations.targets[0]!, traffic)
  onTestFinished(() => { load.kill() })
  await generations.until(() => accepted(generations) === 200)
  await load.until(({ answers }) => answers > 200)
  for (const step of steps.slice(1)) {
    use(binaries[step]!)
    await generations.reload('signal')
    await load.until((stats) => stats.versions.some(({ version }) => version === String(generations.count)))
  }
  await drained(generations)
  const result = await load.stop()

  const boots = generations.events.filter(({ event }) => event === 'boot').map(({ node }) => node as string)
  console.log(`${boots.join(' → ')}: ${result.requests} requests, ${result.lost} lost, ${result.closedByServer.total} closed, ${result.opened} opened`)
  expect(boots).toEqual(steps.map((step) => versions[step]))
  eachClientKeptItsConnection(result)
  everyConnectionMoved(generations, 200)
  expect(accepted(generations)).toBe(200)
})
