/** The requests of a service, as `handover status` has them: summed over workers and generations, over reloads and a crash. */

import { expect, test } from 'vitest'
import { Keeping } from '../../helpers/keeping.js'
import { waitFor } from '../../helpers/program.js'

test('the requests of a service are exact over reloads of all workers, and never run backwards, also when one is killed', async () => {
  await using kept = await Keeping.start({ workers: 2 })
  const first = await kept.serves()
  const seen: number[] = []
  const look = async (): Promise<void> => { seen.push((await kept.status())?.service?.requests ?? 0) }
  const load = kept.load({ newConnections: { clients: 4, thinkMs: 3 }, keepAlive: { clients: 2, thinkMs: 3 } })
  for (let round = 0; round < 2; round++) {
    await look()
    const reload = kept.reload('--bake', '0', '--wait')
    await look()
    expect((await reload).ok).toBe(true)
    await look()
  }
  const { requests, lost } = await load.stop()
  expect(lost).toBe(0)
  await waitFor(async () => {
    await look()
    return seen.at(-1) === requests
  })
  const pids = await kept.serves()
  expect(pids).not.toContain(first[0])
  // Nothing runs: all that was begun has been told.
  process.kill(pids[1]!, 'SIGKILL')
  await waitFor(async () => {
    await look()
    return !(await kept.serves()).includes(pids[1]!)
  })
  await look()
  expect(seen.at(-1)).toBe(requests)
  expect(seen).toEqual([...seen].sort((a, b) => a - b))
}, 120_000)
