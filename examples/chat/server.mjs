// node examples/chat/server.mjs      then, in some terminals: nc localhost 3000
// kill -HUP <the pid that it prints>
import net from 'node:net'
import { handover } from '@handover/core'

const longestLine = 10_000 // in bytes; half a line goes along in the state, which has its limit too
const members = new Map() // socket → { name, rest: what has come of a line that is not whole yet }
let leaving = false
// All members leave the predecessor at once, and are heard here from then on; but they arrive one by one.
// So what is said is kept for those who are still on their way.
let said = []

function say(line) {
  said?.push(line)
  for (const socket of members.keys()) socket.write(`${line}\n`, 'latin1')
}

function hear(member, line) {
  if (member.name) return say(`${member.name}: ${line}`)
  member.name = line
  say(`* ${line} is here`)
}

function welcome(socket, member) {
  members.set(socket, member)
  socket.setEncoding('latin1') // bytes as they are: with utf8, half a character could not move
  socket.on('data', (text) => {
    const lines = (member.rest + text).split('\n')
    if (lines.some((line) => line.length > longestLine)) return socket.destroy()
    member.rest = lines.pop()
    for (const line of lines) hear(member, line)
  })
  socket.on('error', () => {}).on('close', () => { if (members.delete(socket) && member.name) say(`* ${member.name} has left`) })
  if (leaving) move(socket, member)
}

async function move(socket, member) {
  const moved = await handover.move(socket, { kind: 'chat', state: member }).catch(console.error)
  if (moved) members.delete(socket)
}

handover.onMoved('chat', (socket, member) => {
  for (const line of said ?? []) socket.write(`${line}\n`, 'latin1')
  welcome(socket, member)
})
handover.events.on('draining', () => {
  leaving = true
  for (const [socket, member] of members) move(socket, member)
})
handover.events.on('state', ({ to }) => {
  if (to !== 'serving') return
  leaving = false
  // As long as drainTimeout is by default: the predecessor has ended by then, and nobody is on the way any more.
  setTimeout(() => { said = undefined }, 30_000).unref()
})

const server = handover(net.createServer((socket) => { welcome(socket, { name: '', rest: '' }) }))
server.listen(Number(process.env.PORT ?? 3000), () => console.log('listening on', server.address(), `process ${process.pid}`))
