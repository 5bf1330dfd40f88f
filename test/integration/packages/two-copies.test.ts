/** The package loaded twice in one process, in both module systems and as two copies: one generation. */

import { copyFileSync, cpSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { Folder } from '../../helpers/plan.js'
import { runModule } from '../../helpers/script.js'
import { root } from '../../helpers/world.js'

test('loaded twice, by import and by require() and as two copies, it is one generation, and its errors are those of each copy', () => {
  using folder = new Folder()
  const core = folder.at('node_modules/@handover/core')
  cpSync(path.join(root, 'packages/core/dist'), path.join(core, 'dist'), { recursive: true })
  copyFileSync(path.join(root, 'packages/core/package.json'), path.join(core, 'package.json'))
  const run = runModule(`import module from 'node:module'
    import http from 'node:http'
    import { once } from 'node:events'
    import { handover as first, HandoverError } from '@handover/core'
    const { handover: second } = module.createRequire(import.meta.url)('@handover/core')
    const { handover: third, HandoverError: Third } = await import(${JSON.stringify(`file://${core}/dist/index.mjs`)})
    console.log(first === second, first === third, first.events === third.events)
    const server = third(http.createServer()).listen(0)
    await once(server, 'listening')
    console.log(first.state, second.state, third.state, process.listenerCount('SIGHUP'))
    server.close()
    try { third.onMoved('http') } catch (error) { console.log(error.constructor === HandoverError, error instanceof HandoverError, error instanceof Third) }
    console.log({} instanceof HandoverError, new Error() instanceof HandoverError)`)
  expect(run).toEqual({ stdout: 'true false true\nserving serving serving 1\ntrue true true\nfalse false\n', stderr: '', status: 0 })
})
