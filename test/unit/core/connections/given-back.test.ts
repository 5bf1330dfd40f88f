/** A connection that a server cannot take: its predecessor may go on with it only where its client has heard of nobody else. */

import { socketPair } from '@handover/core/fd'
import { closeSync, readSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { ConnectionTracker, GiveBackError } from '../../../helpers/internals.js'
import { certificate } from '../../../programs/certificate.mjs'

const about = { kind: 'http', listener: 'tcp', ageMs: 0, idleMs: 0, requests: 1 }

/** What it throws, and what its client hears. */
async function refusedBy(server: net.Server): Promise<{ error: unknown; heard: string }> {
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const [client, accepted] = socketPair()
  onTestFinished(() => {
    server.close()
    closeSync(client)
  })
  try {
    connections.receive(accepted, about)
  } catch (error) {
    await new Promise(setImmediate)
    const bytes = Buffer.alloc(1_000)
    return { error, heard: bytes.toString('latin1', 0, readSync(client, bytes)) }
  }
  throw new Error('it was taken')
}

test('where the program says something to it and closes it, it is not given back', async () => {
  const server = http.createServer().on('connection', (socket) => {
    socket.write('HTTP/1.1 503 Too many connections\r\n\r\n')
    socket.destroy()
  })
  const { error, heard } = await refusedBy(server)
  expect(heard).toContain('503')
  expect(error).toBeInstanceOf(GiveBackError)
})

test('where the program closes it in silence, it is given back', async () => {
  const { error, heard } = await refusedBy(http.createServer().on('connection', (socket) => { socket.destroy() }))
  expect(heard).toBe('')
  expect(error).toMatchObject({ message: "a listener for 'connection' closed it" })
  expect(error).not.toBeInstanceOf(GiveBackError)
})

test.for([{}, { allowHTTP1: false }])('a server of HTTP/2 alone says nothing to a connection of HTTP/1: %o', async (options) => {
  const { error, heard } = await refusedBy(http2.createSecureServer({ ...certificate(), ...options }))
  expect(heard).toBe('')
  expect(error).toMatchObject({ message: 'the server speaks HTTP/2 alone' })
})
