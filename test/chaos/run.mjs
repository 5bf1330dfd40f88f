// `npm run chaos -- [--seed N] [--episodes N]`: as many episodes of chaos as wanted (20), from this seed on; without one, from another one each time.
// Each episode is a test with its own seed in its name. Ends with `N passed, N failed`.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values } = parseArgs({ options: { seed: { type: 'string', default: String(1 + Math.floor(Math.random() * 1_000_000)) }, episodes: { type: 'string', default: '20' } } })
for (const [name, value] of Object.entries(values)) {
  if (!/^[1-9]\d{0,8}$/.test(value)) {
    console.error(`--${name} must be a whole number above 0, not ${value}`)
    process.exit(2)
  }
}
console.log(`chaos: ${values.episodes} episode${values.episodes === '1' ? '' : 's'} from seed ${values.seed} on`)
const { status } = spawnSync(process.execPath, [fileURLToPath(new URL('../run.mjs', import.meta.url)), 'test/chaos/chaos', '--reporter=verbose'], {
  stdio: 'inherit',
  env: { ...process.env, HANDOVER_CHAOS_SEED: values.seed, HANDOVER_CHAOS_EPISODES: values.episodes }
})
process.exitCode = status ?? 1
