/** Other languages at the other end, with nothing but their standard libraries: the messages are plain SCM_RIGHTS. */

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import path from 'node:path'
import { receiveFds, receiveListener, sendFds, sendListener } from '@handover/core/fd'
import { beforeAll, describe, expect, it } from 'vitest'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { files, readAll, startPeer } from '../helpers/fd-peer/support.js'

const source = (name: string): string => path.join(import.meta.dirname, '../helpers/fd-peer', name)
const has = (command: string, ...words: string[]): boolean => spawnSync(command, words).status === 0

const languages = [
  // socket.send_fds is new in Python 3.9.
  { language: 'Python', found: has('python3', '-c', 'import socket; socket.send_fds'), missing: 'there is no python3 with socket.send_fds' },
  { language: 'Go', found: has('go', 'version'), missing: 'there is no go' }
]

for (const { language, found, missing } of languages) {
  describe.skipIf(!found)(`${language} at the other end${found ? '' : `: skipped, ${missing}`}`, () => {
    let command: [string, ...string[]]

    beforeAll(() => {
      if (language === 'Python') {
        command = ['python3', source('peer.py')]
        return undefined
      }
      const place = mkdtempSync(path.join(tmpdir(), 'handover-go-'))
      const program = path.join(place, 'peer')
      const built = spawnSync('go', ['build', '-o', program, source('peer.go')], { env: { ...process.env, GOCACHE: path.join(place, 'cache'), GOFLAGS: '-mod=mod', GO111MODULE: 'off' }, encoding: 'utf8' })
      expect(built.stderr).toBe('')
      command = [program]
      return () => { rmSync(place, { recursive: true }) }
    }, 240_000)

    it('receives descriptors and data from Node', async () => {
      const peer = startPeer(...command, 'receive')
      await sendFds(peer.connection, files('first', 'second'), 'from Node')
      expect(await peer.said()).toEqual({ data: 'from Node', texts: ['first', 'second'] })
      expect(await peer.end()).toBe(0)
    })

    it('sends descriptors and data to Node', async () => {
      const peer = startPeer(...command, 'send')
      const { data, fds } = await receiveFds(peer.connection)
      expect(data.toString()).toBe('from afar')
      const texts = await Promise.all(fds.map(async (fd) => {
        const [text] = await once(new net.Socket({ fd }).setEncoding('utf8'), 'data') as [string]
        return text
      }))
      expect(texts).toEqual(['one', 'two', 'three'])
    })

    it('makes a listening socket that Node serves on', async () => {
      const peer = startPeer(...command, 'listen')
      const { server, data, description } = await receiveListener(peer.connection, net.createServer((socket) => { socket.end('Node') }))
      expect(await peer.end()).toBe(0)
      expect([data.toString(), description]).toEqual(['take it', undefined])
      const { port } = server.address() as net.AddressInfo
      expect(await readAll({ port, host: '127.0.0.1' })).toBe('Node')
      server.close()
      await once(server, 'close')
    })

    it('serves on a listener of Node', async () => {
      const peer = startPeer(...command, 'serve')
      const server = net.createServer().listen(0, '127.0.0.1')
      await once(server, 'listening')
      const { port } = server.address() as net.AddressInfo
      await sendListener(peer.connection, server, 'for you')
      server.close()
      await once(server, 'close')
      expect(await readAll({ port, host: '127.0.0.1' })).toBe('another language')
      expect(await peer.said()).toEqual({ name: `tcp 127.0.0.1:${port}`, data: 'for you' })
      expect(await peer.end()).toBe(0)
    })
  })
}

