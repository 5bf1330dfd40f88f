/**
 * As PID 1 of a namespace: starts processes that leave orphans behind, and processes of its own, many times at once. Prints one line of JSON: how many
 * exit events came of how many, and the zombies that were left.
 */

import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { reapOrphans } from '../../packages/cli/dist/keeper/reap-orphans.js'

const rounds = Number(process.argv[2])
const ours = new Set()
let exits = 0

/** The processes of this namespace, but for this one: pid, state and who started them. */
function processes() {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name) && name !== '1').flatMap((name) => {
    try {
      const [state, ppid] = readFileSync(`/proc/${name}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
      return [{ pid: Number(name), state, ppid: Number(ppid) }]
    } catch {
      return []
    }
  })
}

function start(script) {
  return new Promise((resolve) => {
    const child = spawn('sh', ['-c', script], { stdio: 'ignore' })
    ours.add(child.pid)
    child.on('exit', (code) => {
      ours.delete(child.pid)
      if (code === 7) exits++
      resolve()
    })
  })
}

if (process.argv[3] !== 'without') reapOrphans((pid) => ours.has(pid))
let begun = 0
for (let round = 0; round < rounds; round++) {
  const all = []
  // Orphans that outlive their starter, that end before it, and that end with it; and processes without any.
  for (const script of ['sleep 0.02 & sleep 0.01 & exit 7', 'sh -c "true & exec true" & sh -c "exit 3" & exit 7', '(sh -c "sleep 0 & sleep 0.01 & true" &) ; exit 7', 'exit 7', 'exit 7']) {
    begun++
    all.push(start(script))
  }
  await Promise.all(all)
}

// Until nobody runs any more, and then as long as zombies go away.
const ended = setInterval(() => {
  const left = processes()
  if (left.some(({ state }) => state !== 'Z') || (left.length > 0 && process.argv[3] !== 'without')) return
  clearInterval(ended)
  console.log(JSON.stringify({ begun, exits, zombies: left.length }))
}, 20)
