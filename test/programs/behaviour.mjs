// What can go wrong in a program, on request: one word, with an argument after a colon.
//   throw, exit:3, exit:0, hang, never-listens (prints `booting`), reject, write:some text to stderr then exit 1
//   kill-at:STATE       kills itself with SIGKILL when this process enters STATE (preparing, ready, serving, offering, committing, draining)
//   exit-at:STATE       the same with process.exit(7)
//   busy-at:STATE       is busy for half a second when it has said that it entered STATE
//   syntax-error        imports a file that does not parse
//   listen-fails        binds a port that is in use
//   silent-then-boot    prints `booting` and takes 1 s to boot
//   usr2:exit, usr2:throw, usr2:loop, usr2:busy   runs well until SIGUSR2, then process.exit(7), an uncaught exception, an endless loop, or one of a second
//   spawn               starts a `sleep` at boot and another one once it serves, both with its stderr; prints `spawned`
//   talk-later          starts a child at boot that writes to stderr on every line of its standard input, which SIGUSR2 sends
//   adds:PATH:STATUS    listens on a Unix path too, then exits with STATUS or, where it is `kill`, by SIGKILL
//   limit:N             may open N descriptors more than it has
//   kills:PID@STATE     kills another process when this one enters STATE
//   chatter:PID         kills its predecessor when it has the offer, and writes 4 MB to stderr a moment later
//   late-limit:N        may open N descriptors more than it has when it has told its predecessor how many it can take
//   limit-at:STATE      may open none more than it has when it enters STATE
//   at-adopted:N:WHAT   when it has N connections of its predecessor, prints `adopted` and does WHAT before it goes on: kill, suspend (SIGSTOP),
//                       block (for a second), stop, term (SIGTERM), kills:PID, tell (nothing else)
import { execFileSync, spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { print } from './print.mjs'

export async function behave(word, handover) {
  const [name, argument] = word.split(/:(.*)/s)
  switch (name) {
    case 'ok': return
    case 'throw': throw new Error('this build throws at boot')
    case 'reject': return void Promise.reject(new Error('this build rejects at boot'))
    case 'write': process.stderr.write(`${argument}\n`); process.exit(1); break
    case 'exit': process.exit(Number(argument)); break
    case 'hang': for (;;) { /* blocks the event loop */ }
    case 'never-listens': print('booting'); setInterval(() => undefined, 1000); await new Promise(() => undefined); break
    case 'syntax-error': await import('./syntax-error.mjs'); break
    case 'listen-fails': {
      const busy = net.createServer().listen(0, '127.0.0.1')
      await new Promise((resolve) => busy.once('listening', resolve))
      const second = handover(net.createServer())
      second.listen(busy.address().port, '127.0.0.1')
      await new Promise((resolve) => second.once('listening', resolve))
      break
    }
    case 'silent-then-boot': print('booting'); await wait(1000); break
    case 'kill-at': handover.events.on('state', ({ to }) => { if (to === argument) process.kill(process.pid, 'SIGKILL') }); break
    case 'exit-at': handover.events.on('state', ({ to }) => { if (to === argument) process.exit(7) }); break
    case 'busy-at': handover.events.on('state', ({ to }) => { if (to === argument) setImmediate(beBusy, 500) }); break
    case 'usr2':
      process.on('SIGUSR2', () => {
        if (argument === 'exit') process.exit(7)
        if (argument === 'loop' || argument === 'busy') beBusy(argument === 'loop' ? Infinity : 1_000)
        if (argument === 'throw') throw new Error('this generation throws while it serves')
        print('was busy')
      })
      break
    case 'spawn': {
      const start = () => {
        const child = spawn('sleep', ['300'], { stdio: ['ignore', 'ignore', 'inherit'] })
        child.once('spawn', () => { print('spawned', { child: child.pid, state: handover.state }) })
        child.unref()
      }
      start()
      handover.events.on('state', ({ to }) => { if (to === 'serving') start() })
      break
    }
    case 'talk-later': {
      const child = spawn('sh', ['-c', 'while read line; do echo "$line" >&2; done'], { stdio: ['pipe', 'ignore', 'inherit'] })
      process.on('SIGUSR2', () => { child.stdin.write('the child of the successor still has a stderr\n') })
      break
    }
    case 'adds': {
      const [file, status] = argument.split(':')
      const added = handover(net.createServer())
      await new Promise((resolve) => added.listen(file, resolve))
      if (status === 'kill') process.kill(process.pid, 'SIGKILL')
      process.exit(Number(status))
      break
    }
    case 'limit': limitFiles(Number(argument)); break
    // `serving` is said in the turn of the loop in which the state is entered.
    case 'late-limit': handover.events.on('state', ({ to }) => { if (to === 'serving') setImmediate(limitFiles, Number(argument)) }); break
    case 'limit-at': handover.events.on('state', ({ to }) => { if (to === argument) limitFiles(0) }); break
    case 'at-adopted': {
      const [count, what, victim] = argument.split(':')
      atAdopted(handover, Number(count), {
        kill: () => process.kill(process.pid, 'SIGKILL'),
        suspend: () => process.kill(process.pid, 'SIGSTOP'),
        block: () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000),
        stop: () => { void handover.stop() },
        term: () => process.kill(process.pid, 'SIGTERM'),
        kills: () => process.kill(Number(victim), 'SIGKILL'),
        tell: () => undefined
      }[what])
      break
    }
    case 'kills': {
      const [victim, state] = argument.split('@')
      handover.events.on('state', ({ to }) => { if (to === state) process.kill(Number(victim), 'SIGKILL') })
      break
    }
    case 'chatter': handover.events.on('state', ({ to }) => {
      if (to !== 'preparing') return
      process.kill(Number(argument), 'SIGKILL')
      setTimeout(() => { for (let kilobyte = 0; kilobyte < 4096; kilobyte++) process.stderr.write(`${'.'.repeat(1023)}\n`) }, 100)
    }); break
    default: throw new Error(`no behaviour ${word}`)
  }
}

/** Blocks the event loop. */
function beBusy(ms) {
  for (const end = Date.now() + ms; Date.now() < end;) { /* it has something to compute */ }
}

function limitFiles(more) {
  execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${readdirSync('/proc/self/fd').length + more}`])
}

/** A connection that was moved here is the only one that comes before a client has connected to this process. */
function atAdopted(handover, count, act) {
  const { emit } = http.Server.prototype
  let adopted = 0
  http.Server.prototype.emit = function (event, ...args) {
    const answer = emit.call(this, event, ...args)
    if (event === 'connection' && handover.state === 'serving' && ++adopted === count) {
      print('adopted', { count })
      act()
    }
    return answer
  }
}
