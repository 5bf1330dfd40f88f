/**
 * Runs what serves HTTP once before it is needed, Node's code and that of this package: the first requests of a process take five times as
 * long as later ones, and after a switch many wait for them.
 *
 * The server is its own, and its connections are pairs of descriptors: nothing listens, and no code of the program hears of it. It is for
 * a process that has no code of a program yet, which could have put its own functions into Node's.
 */

import { closeSync } from 'node:fs'
import http from 'node:http'
import { lendHandle, readAsIf, runTicks } from '../platform/node/connection-handle.js'
import { native } from '../platform/native.js'
import { ConnectionTracker } from './connection-tracker.js'
import { requestCounts } from './request-counts.js'

/** So many answers have room in the kernel: nobody reads them. */
const requestsEach = 50
const connectionsAtOnce = 8
/** 6,400 requests: 1,200 take a third of the CPU, and then the first requests of the program take longer. */
const rounds = 16
const mostMs = 1_000
const request = Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: node\r\nAccept: */*\r\n\r\n')

/** Needs no turn of the event loop. Does nothing where this Node has another inside, and never throws. */
export function warmUp(): void {
  const before = { ...requestCounts }
  const until = performance.now() + mostMs
  try {
    const server = http.createServer((_, response) => {
      // Its text is kept for a second of the event loop, which does not run yet.
      response.sendDate = false
      response.end('ok')
    })
    const tracker = new ConnectionTracker(server)
    const takeBack = lendHandle(server)
    try {
      for (let round = 0; round < rounds; round++) serveSome(tracker, until)
    } finally {
      takeBack()
    }
  } catch { /* Then the first requests do it. */ }
  Object.assign(requestCounts, before)
}

function serveSome(tracker: ConnectionTracker, until: number): void {
  const clients: number[] = []
  const sockets = []
  try {
    for (let index = 0; index < connectionsAtOnce; index++) {
      const pair = native?.socketPair()
      if (typeof pair !== 'object') return
      clients.push(pair[1])
      sockets.push(tracker.receive(pair[0], { kind: 'http', listener: '', ageMs: 0, idleMs: 0, requests: 0 }))
    }
    runTicks()
    for (let each = 0; each < requestsEach && performance.now() < until; each++) {
      for (const socket of sockets) readAsIf(socket, request)
      runTicks()
    }
  } finally {
    // Nobody may see them among the open handles of the process.
    for (const socket of sockets) socket.unref().destroy()
    for (const fd of clients) closeSync(fd)
    runTicks()
  }
}
