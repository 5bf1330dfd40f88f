/**
 * What this process got from the process that started it: the ends of a channel, and its environment.
 * The parts of the world that tests replace are in the `Host` object.
 */

import { readFileSync } from 'node:fs'
import { inspectorMark } from './inspector-port.js'
import { keeperMark, spareMark, successorMark } from './marks.js'
import { native } from './native.js'
import { pathsMark } from './path-guard.js'
import { InheritedStderr } from './stderr-relay.js'

/** Variables for this process alone: the marks, and the IPC channel of fork(). */
const notInherited = [
  successorMark, keeperMark, spareMark, pathsMark, inspectorMark, 'NODE_CHANNEL_FD', 'NODE_CHANNEL_SERIALIZATION_MODE', 'NODE_UNIQUE_ID'
]

/** The inherited ends of the channel in a process that was started as a successor. */
export interface Inheritance {
  readonly messages: number
  readonly descriptors: number
  /** The real stderr: until the commit, descriptor 2 leads through the predecessor. */
  readonly stderr?: InheritedStderr
}

/** A program that copies its environment passes on a mark without the sockets: then the numbers are of anything, or of nothing. */
export const isChannel = (...fds: readonly number[]): boolean => fds.every((fd) => {
  const about = (fd | 0) === fd ? native?.describe(fd) : undefined
  return typeof about === 'object' && about.family === 'unix' && about.type === 'stream' && !about.listening
})

/** Reads and removes the mark. Call it before anything else. */
export function takeInheritance(env: NodeJS.ProcessEnv): Inheritance | undefined {
  const mark = env[successorMark]
  Reflect.deleteProperty(env, successorMark)
  const [messages, descriptors, original, relay] = (mark ?? '').split(',').map(Number)
  if (messages === undefined || descriptors === undefined || !isChannel(messages, descriptors)) return undefined
  return { messages, descriptors, ...(original !== undefined && relay !== undefined && { stderr: new InheritedStderr(original, relay) }) }
}

/** As it was at the start: what the program has set since (by dotenv) must not hide what a new version sets. proc(5), else as it is now. */
export function initialEnvironment(): NodeJS.ProcessEnv {
  let env: NodeJS.ProcessEnv
  try {
    const pairs = readFileSync('/proc/self/environ', 'utf8').split('\0').filter((pair) => pair.indexOf('=') > 0)
    env = Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]))
  } catch {
    env = { ...process.env }
  }
  for (const key of notInherited) Reflect.deleteProperty(env, key)
  return env
}
