// A server whose event loop can be held. ADAPTER: with the adapter; else it knows nothing of Handover. PORT; GATES: a folder.
//   /block  answers when GATES/block exists; until then the event loop does nothing else. It prints `blocked` first.
//   /wait   answers when GATES/wait exists; the event loop goes on. It prints `waits` first.
//   /loop   blocks the event loop for ever
// Whatever else is asked for is answered with the pid. While GATES/boot-loops exists, a process that has listened blocks soon after it.
const fs = require('node:fs')
const http = require('node:http')
const path = require('node:path')

const { ADAPTER, PORT, GATES = '' } = process.env
const adopt = ADAPTER ? require('@handover/core').handover : (server) => server
const open = (gate) => fs.existsSync(path.join(GATES, gate))
const print = (event) => { fs.writeSync(1, `${JSON.stringify({ event, pid: process.pid })}\n`) }
const cell = new Int32Array(new SharedArrayBuffer(4))

adopt(http.createServer((request, response) => {
  const answer = () => { response.end(String(process.pid)) }
  request.resume()
  if (request.url === '/block') {
    print('blocked')
    while (!open('block')) Atomics.wait(cell, 0, 0, 10)
    answer()
  } else if (request.url === '/wait') {
    const timer = setInterval(() => {
      if (!open('wait')) return
      clearInterval(timer)
      answer()
    }, 10)
    print('waits')
  } else if (request.url === '/loop') {
    print('loops')
    for (;;);
  } else answer()
})).listen(Number(PORT), '127.0.0.1', () => { print('listens') })
