import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { LongestFirst } from './test/order.js'

// Where the programs under test have their control sockets, unless a test gives them another place.
const controlDirectory = mkdtempSync(path.join(tmpdir(), 'handover-control-'))
process.once('exit', () => { rmSync(controlDirectory, { recursive: true, force: true }) })

// HANDOVER_TEST_COVERAGE names a folder: what the unit tests cover is written there, as c8 reads it.
const { HANDOVER_TEST_COVERAGE: coverage } = process.env

const built = (file: string): string => fileURLToPath(new URL(`packages/core/dist/${file}.js`, import.meta.url))

export default defineConfig({
  // In the process of a test a module of core exists once. The processes that it starts have the bundle, as users do.
  resolve: {
    alias: [
      { find: /^@handover\/core$/, replacement: built('index') },
      { find: '@handover/core/fd', replacement: built('fd/index') },
      { find: '@handover/core/ws', replacement: built('websocket/index') },
      { find: '@handover/core/internal', replacement: built('internal') }
    ]
  },
  test: {
    env: { HANDOVER_DIR: controlDirectory },
    // Node loads what was built, and not Vitest: a test has the same copy of a module as the modules that it tests.
    server: { deps: { external: [/\/packages\/[^/]+\/dist\//] } },
    // Real processes under real load: two files at a time for two cores. More of them fill what these leave while they wait
    // (HANDOVER_TEST_WORKERS).
    maxWorkers: Number(process.env['HANDOVER_TEST_WORKERS'] ?? 2),
    pool: 'forks',
    sequence: { sequencer: LongestFirst },
    testTimeout: 120_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    projects: [
      // Files of one process after the other: nothing is loaded twice, which halves their time.
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'], isolate: false, setupFiles: ['test/unit-only.ts'], ...(coverage && { env: { NODE_V8_COVERAGE: coverage } }) } },
      { extends: true, test: { name: 'processes', include: ['test/**/*.test.ts'], exclude: ['test/unit/**', 'test/types/**', '**/node_modules/**'] } },
      // It computes, and waits for nothing: .ci/run has it before the others.
      { extends: true, test: { name: 'types', include: ['test/types/**/*.test.ts'] } }
    ]
  }
})
