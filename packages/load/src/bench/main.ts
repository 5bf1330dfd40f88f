/**
 * `npm run bench`: runs the benches that are named, or all. Each is a file of its own, loaded only when it runs.
 *
 * It prints what it measures and judges nothing: read the spread between rounds before you read a difference. `--json`: stdout has a line
 * `{ bench, tables }` for each, with the rows of its tables as people see them; all else goes to stderr.
 */

import { tables } from '../table.js'

/** Name → the file and the function that runs it. */
const benches: Readonly<Record<string, readonly [file: string, run: string]>> = {
  fds: ['./fds.js', 'benchFds'],
  boot: ['./boot.js', 'benchBoot'],
  dip: ['./dip.js', 'benchDip'],
  counts: ['./counts.js', 'benchCounts'],
  keeper: ['./keeper.js', 'benchKeeper'],
  http: ['./http.js', 'benchHttp'],
  handover: ['./handover.js', 'benchHandover'],
  move: ['./move.js', 'benchMove'],
  drain: ['./drain.js', 'benchDrain'],
  idle: ['./idle.js', 'benchIdle'],
  tls: ['./tls.js', 'benchTls'],
  workers: ['./workers.js', 'benchWorkers'],
  state: ['./state.js', 'benchState'],
  metrics: ['./metrics.js', 'benchMetrics']
}

async function main(args: readonly string[]): Promise<number> {
  const names = args.filter((arg) => arg !== '--json')
  const asJson = names.length < args.length
  if (asJson) console.log = console.error
  const unknown = names.find((name) => !Object.hasOwn(benches, name))
  if (unknown !== undefined) {
    console.error(`bench: there is no bench ${JSON.stringify(unknown)} (known: ${Object.keys(benches).join(', ')})`)
    return 2
  }
  let failed = 0
  for (const name of names.length > 0 ? names : Object.keys(benches)) {
    const [file, run] = benches[name]!
    console.log(`\n== ${name} ==`)
    try {
      const bench = await import(file) as Record<string, () => unknown>
      await bench[run]!()
      if (asJson) process.stdout.write(`${JSON.stringify({ bench: name, tables: tables.splice(0) })}\n`)
    } catch (error) {
      failed += 1
      const { message, cause } = error as Error
      console.error(`bench ${name} failed: ${message}${typeof cause === 'string' && cause !== '' ? `\n${cause}` : ''}`)
    }
  }
  return failed === 0 ? 0 : 1
}

process.exit(await main(process.argv.slice(2)))
