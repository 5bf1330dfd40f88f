/** Connections that a program sends to another process are that process's, and are not waited for. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { freePorts, get } from '../../helpers/ask.js'
import { commandFile } from '../../helpers/built.js'
import { Folder } from '../../helpers/plan.js'
import { Program, waitFor } from '../../helpers/program.js'

const host = '127.0.0.1'

test('connections that child_process has sent to another process are not counted, and a stop does not wait for them', async () => {
  const [port = 0] = await freePorts(1)
  using folder = new Folder()
  mkdirSync(folder.at('control'), { mode: 0o700 })
  writeFileSync(folder.at('app.cjs'), `const http = require('node:http')
    if (process.argv[2] === 'child') {
      const server = http.createServer((request, response) => { response.end('child') })
      process.on('message', (word, socket) => { if (socket) { server.emit('connection', socket); socket.resume() } })
    } else {
      const child = require('node:child_process').fork(__filename, ['child'])
      require('node:net').createServer({ pauseOnConnect: true }, (socket) => { child.send('take', socket) }).listen(${port}, '${host}')
    }`)
  await using program = Program.start(commandFile, {
    args: ['run', '--spare', 'off', '--name', 'app', 'app.cjs'], cwd: folder.path, env: { HANDOVER_DIR: folder.at('control') }
  })
  await waitFor(async () => await get({ port, host }).then(() => true, () => false))
  for (let count = 0; count < 100; count++) expect((await get({ port, host })).body).toBe('child')
  process.kill(program.pid, 'SIGTERM')
  await waitFor(() => /has stopped/.test(program.stderr))
  expect(program.stderr).toMatch(/has stopped: 0 connections drained, 0 closed idle, 0 cut/)
})
