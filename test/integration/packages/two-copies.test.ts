/**
 * The package loaded more than once in one process: in both module systems and as two copies it is one generation; in worlds apart, as Jest
 * makes them, the last one.
 */

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

test('loaded anew in one world after the other, as Jest loads it for each file of tests, only the last copy hears of servers', () => {
  const run = runModule(`import fs from 'node:fs'
    import http from 'node:http'
    import { once } from 'node:events'
    import module from 'node:module'
    import vm from 'node:vm'
    const file = module.createRequire(import.meta.url).resolve('@handover/core').replace('index.js', 'core.js')
    let core
    for (let world = 1; world <= 12; world++) {
      const apart = vm.createContext({ process, Buffer, performance, setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, queueMicrotask, AbortController, DOMException, URL, structuredClone })
      const copy = { exports: {} }
      vm.compileFunction(fs.readFileSync(file, 'utf8'), ['module', 'exports', 'require', '__dirname', '__filename'], { parsingContext: apart, filename: file })(copy, copy.exports, module.createRequire(file), file.replace('/core.js', ''), file)
      core = copy.exports
      core.internal().adoptRequestListener(onRequest)
    }
    function onRequest(request, response) { response.end('hello') }
    const server = http.createServer(onRequest).listen(0)
    await once(server, 'listening')
    const { handover } = core.index()
    const port = server.address().port
    console.log(await (await fetch('http://127.0.0.1:' + port, { headers: { connection: 'close' } })).text(), handover.service.requests, handover.state, server.listenerCount('connection'))
    server.close()`)
  expect(run).toEqual({ stdout: 'hello 1 serving 2\n', stderr: '', status: 0 })
})

test('a test of a program may replace each member of the object of the process, as vi.spyOn() and sinon.stub() do', () => {
  const run = runModule(`import { handover } from '@handover/core'
    const ofAnyFunction = ['length', 'name', 'arguments', 'caller', 'prototype']
    const members = Object.entries(Object.getOwnPropertyDescriptors(handover)).filter(([name]) => !ofAnyFunction.includes(name))
    for (const [name, { get }] of members) Object.defineProperty(handover, name, get ? { get: () => 'replaced' } : { value: 'replaced' })
    console.log(members.length, members.every(([name]) => handover[name] === 'replaced'))`)
  expect(run).toEqual({ stdout: '13 true\n', stderr: '', status: 0 })
})
