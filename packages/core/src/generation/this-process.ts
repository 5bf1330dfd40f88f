/**
 * This process: its real host, and its one generation. The generation stands behind a symbol that every copy of the package finds: ESM and
 * CommonJS, the application's own and the command's.
 */

import type { Host } from '../handover/host.js'
import { launch } from '../handover/launch.js'
import { takeSeat } from '../keeper-link/keeper-link.js'
import { activation } from '../platform/activated-sockets.js'
import { unavailable } from '../platform/availability.js'
import { systemClock } from '../platform/clock.js'
import { commandLine } from '../platform/command-line.js'
import { initialEnvironment, takeInheritance } from '../platform/environment.js'
import { takeInspectorMark } from '../platform/inspector-port.js'
import { endProcess, isAlive, noteStarter } from '../platform/processes.js'
import { logLine } from '../platform/log-line.js'
import { starterDescriptors } from '../platform/starter-descriptors.js'
import { writeStderr } from '../platform/stderr-relay.js'
import { StopSenders } from '../platform/stop-senders.js'
import { takeSubscriptions } from '../platform/subscriptions.js'
import { leaveTerminal, Terminal, terminalIsGone } from '../platform/terminal.js'
import { BlockingChannel } from '../protocol/blocking-channel.js'
import { Generation } from './generation.js'
import { coreLoaded } from './start-times.js'

/** Call it before the program reads the environment: the marks of the starter are taken out. */
function realHost(env: NodeJS.ProcessEnv): Host {
  const inheritance = takeInheritance(env)
  const inspectorWanted = takeInspectorMark(env)
  // Before the program can open or close descriptors.
  activation()
  starterDescriptors()
  noteStarter()
  const off = unavailable()
  let warn: (line: string) => void = () => undefined
  const command = commandLine((line) => { warn(line) })
  const initial = initialEnvironment()
  return {
    pid: process.pid,
    env,
    clock: systemClock,
    signals: process,
    terminal: new Terminal(),
    stops: new StopSenders(),
    inherited: {
      contact: inheritance && new BlockingChannel(inheritance.messages, inheritance.descriptors),
      stderr: inheritance?.stderr,
      inspectorWanted
    },
    unavailable: off,
    listenedBefore: process.getActiveResourcesInfo().includes('TCPServerWrap'),
    takeSeat: () => (off === undefined ? takeSeat(env) : undefined),
    log: (level, line) => { writeStderr(logLine(level, line)) },
    launch: async (paths, heard) => {
      warn = heard
      return await launch(command(), initial, paths)
    },
    isAlive,
    kill: endProcess,
    exit: (status = Number(process.exitCode ?? 0)) => {
      // The terminal may have gone without a signal to this process: its keeper got that.
      if (terminalIsGone()) leaveTerminal()
      process.exit(status)
    }
  }
}

const key: unique symbol = Symbol.for('@handover/core')
const shared = globalThis as unknown as Record<typeof key, Generation | undefined>

export function generationOfProcess(): Generation {
  return shared[key] ??= first()
}

function first(): Generation {
  takeSubscriptions()
  const generation = new Generation(realHost(process.env))
  coreLoaded()
  return generation
}
