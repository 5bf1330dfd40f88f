/**
 * The rules of who may import whom bite: into a copy of the sources a forbidden import is written for each rule of
 * .dependency-cruiser.mjs, and a circle; the check then names each of these rules with its reason. Without them it finds nothing.
 */

import { appendFileSync, cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { cruise, type ICruiseOptions, type IForbiddenRuleType, type IReporterOutput } from 'dependency-cruiser'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const rules = (await import(path.join(root, '.dependency-cruiser.mjs')) as { default: { forbidden: IForbiddenRuleType[]; options: ICruiseOptions } }).default

/** A file of the room, and what it must not import; by the name of the rule. */
const forbidden: Record<string, readonly [file: string, imported: string]> = {
  'no circle': ['packages/core/src/errors.ts', './errors-circle.js'],
  'core: errors.ts': ['packages/core/src/errors.ts', './options.js'],
  'core: typo.ts': ['packages/core/src/typo.ts', './errors.js'],
  'core: options.ts': ['packages/core/src/options.ts', './protocol/report.js'],
  'core: platform': ['packages/core/src/platform/spawn.ts', '../protocol/channel.js'],
  'core: platform/node': ['packages/core/src/platform/node/response.ts', '../spawn.js'],
  'core: protocol': ['packages/core/src/protocol/channel.ts', '../control/control-socket.js'],
  'core: pure words': ['packages/core/src/protocol/lifecycle.ts', 'node:net'],
  'core: fd': ['packages/core/src/fd/turns.ts', '../protocol/channel.js'],
  'core: listeners': ['packages/core/src/listeners/listener-match.ts', '../connections/drain.js'],
  'core: connections': ['packages/core/src/connections/drain.ts', '../sharing/shared-state.js'],
  'core: sharing': ['packages/core/src/sharing/shared-state.ts', '../control/control-socket.js'],
  'core: control': ['packages/core/src/control/control-socket.ts', '../listeners/listener-registry.js'],
  'core: keeper-link': ['packages/core/src/keeper-link/keeper-link.ts', '../sharing/shared-state.js'],
  'core: handover': ['packages/core/src/handover/launch.ts', '../generation/signals.js'],
  'core: predecessor': ['packages/core/src/handover/predecessor.ts', './successor.js'],
  'core: successor': ['packages/core/src/handover/successor.ts', './predecessor.js'],
  'core: generation': ['packages/core/src/generation/signals.ts', '../websocket/websocket.js'],
  'core: websocket': ['packages/core/src/websocket/websocket.ts', '../connections/drain.js'],
  'core: doors': ['packages/core/src/control/first-line.ts', '../index.js'],
  'cli: text.ts': ['packages/cli/src/text.ts', './failure.js'],
  'cli: failure.ts': ['packages/cli/src/failure.ts', './text.js'],
  'cli: service.ts': ['packages/cli/src/service.ts', './text.js'],
  'cli: command-line': ['packages/cli/src/command-line/arguments.ts', '../keeper/keeper.js'],
  'cli: control': ['packages/cli/src/control/ask.ts', '../client/find-apps.js'],
  'cli: report': ['packages/cli/src/report/picture.ts', '../keeper/keeper.js'],
  'cli: drill': ['packages/cli/src/drill/drill.ts', '../client/find-apps.js'],
  'cli: client': ['packages/cli/src/client/find-apps.ts', '../keeper/keeper.js'],
  'cli: keeper': ['packages/cli/src/keeper/slot.ts', '../commands/run.js'],
  'cli: preload': ['packages/cli/src/preload.ts', './text.js'],
  'cli: core': ['packages/cli/src/main.ts', '../../core/src/index.js'],
  'load: client': ['packages/load/src/client/client.ts', '../demo/demo.js'],
  adapters: ['packages/express/src/index.ts', '../../core/src/errors.js']
}

describe('who may import whom', () => {
  let copy: string
  const found = new Map<string, string[]>()

  async function violations(): Promise<{ from: string; to: string; rule: string }[]> {
    const folders = readdirSync(path.join(copy, 'packages')).map((name) => `packages/${name}/src`)
    const { output } = await cruise(folders, {
      ...rules.options, baseDir: copy, validate: true, ruleSet: { forbidden: rules.forbidden }
    }) as IReporterOutput
    if (typeof output === 'string') throw new Error(output)
    return output.summary.violations.map(({ from, to, rule }) => ({ from, to, rule: rule.name }))
  }

  beforeAll(async () => {
    copy = mkdtempSync(path.join(tmpdir(), 'handover-rooms-'))
    for (const { name } of readdirSync(path.join(root, 'packages'), { withFileTypes: true }).filter((entry) => entry.isDirectory())) cpSync(path.join(root, 'packages', name, 'src'), path.join(copy, 'packages', name, 'src'), { recursive: true })
    symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'))
    expect(await violations()).toEqual([])
    appendFileSync(path.join(copy, 'packages/core/src/errors-circle.ts'), "export * from './errors.js'\n")
    for (const [file, imported] of Object.values(forbidden)) appendFileSync(path.join(copy, file), `\nimport '${imported}'\n`)
    for (const { from, rule } of await violations()) found.set(rule, [...(found.get(rule) ?? []), from])
  })

  afterAll(() => { rmSync(copy, { recursive: true, force: true }) })

  it('every rule is tried, and has its reason', () => {
    expect(Object.keys(forbidden).sort()).toEqual(rules.forbidden.map(({ name }) => name!).sort())
    for (const { name, comment, severity } of rules.forbidden) expect({ name, reason: (comment ?? '').length > 5, severity }).toEqual({ name, reason: true, severity: 'error' })
  })

  it.each(Object.entries(forbidden))('"%s" finds a forbidden import', (rule, [file]) => {
    expect(found.get(rule)).toContain(file)
  })
})
