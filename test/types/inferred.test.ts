/**
 * A package that is compiled with its declarations (`declaration`, `composite`) and exports what it took from `app.handover`: TypeScript
 * must find a name for each inferred type in the adapter alone, because with pnpm the program cannot import core.
 */

import { copyFileSync, cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import type ts from 'typescript'
import { expect, test } from 'vitest'
import { Folder } from '../helpers/plan.js'
import { root } from '../helpers/world.js'

const require = createRequire(import.meta.url)

/** As pnpm does it: each package in a folder of its own with what it depends on, and links from there to the program's node_modules. */
function installApart(folder: Folder, adapter: string): void {
  for (const name of ['core', adapter]) {
    const to = folder.at(`node_modules/.store/${name}/node_modules/@handover/${name}`)
    cpSync(path.join(root, 'packages', name, 'dist'), path.join(to, 'dist'), { recursive: true, filter: (file) => !/\.(m?js|tsbuildinfo)$/.test(file) })
    copyFileSync(path.join(root, 'packages', name, 'package.json'), path.join(to, 'package.json'))
  }
  const apart = `node_modules/.store/${adapter}/node_modules`
  symlinkSync(folder.at('node_modules/.store/core/node_modules/@handover/core'), folder.at(`${apart}/@handover/core`))
  mkdirSync(folder.at('node_modules/@handover'))
  symlinkSync(folder.at(`${apart}/@handover/${adapter}`), folder.at(`node_modules/@handover/${adapter}`))
  for (const name of ['fastify', '@types']) {
    for (const at of [apart, 'node_modules']) symlinkSync(path.join(root, 'node_modules', name), folder.at(`${at}/${name}`))
  }
}

test.each(['express', 'fastify'])('what a program infers from app.handover of @handover/%s has a name in its declarations', (adapter) => {
  using folder = new Folder()
  installApart(folder, adapter)
  writeFileSync(folder.at('app.mts'), `
    import { handover } from '@handover/${adapter}'
    export const app = ${adapter === 'express' ? 'handover(null! as { (): void; listen(): import("node:http").Server })' : 'null! as import("fastify").FastifyInstance'}
    export const { aggregate, events, lastReport, move, onMoved, peer, ready, reload, service, share, state, stop } = app.handover
    export const sum = app.handover.aggregate('sum', { own: () => 1, add: (a, b) => a + b })
    export const takes = handover
  `)
  const compiler = require('typescript') as typeof ts
  const { NodeNext } = compiler.ModuleKind
  const program = compiler.createProgram([folder.at('app.mts')], {
    module: NodeNext, target: compiler.ScriptTarget.ES2022, strict: true, skipLibCheck: true, declaration: true, types: ['node'], typeRoots: [folder.at('node_modules/@types')]
  })
  const emitted = program.emit(undefined, () => undefined)
  const found = [...compiler.getPreEmitDiagnostics(program), ...emitted.diagnostics]
  expect([...new Set(found.map(({ messageText }) => compiler.flattenDiagnosticMessageText(messageText, ' ')))]).toEqual([])
}, 120_000)
