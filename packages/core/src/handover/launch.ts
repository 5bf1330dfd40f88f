/** Starts a successor: the command that a person would type, the guard of served Unix paths before it, and the channel to it. */

import { activation, throughShell } from '../platform/activated-sockets.js'
import type { CommandLine } from '../platform/command-line.js'
import { withOwnInspector } from '../platform/inspector-port.js'
import { builtFile } from '../platform/native-binary.js'
import { pathsMark } from '../platform/path-guard.js'
import { startInspected, type SpawnedChild, type SpawnedProcess } from '../platform/spawn.js'
import { openChannel, type Channel } from '../protocol/channel.js'
import { handoverMessages } from '../protocol/handover-messages.js'

/** A successor, whoever started it. */
export interface LaunchedSuccessor {
  readonly channel: Channel
  /** 0 where it is not known (another pid namespace). */
  readonly pid: number
  /** Absent where this process did not start it. */
  readonly child?: SpawnedChild
}

/** Opens the channel to a process that was started. */
export function channelTo({ messages, descriptors }: Pick<SpawnedProcess, 'messages' | 'descriptors'>): Channel {
  return openChannel(messages, descriptors, handoverMessages)
}

/**
 * With the guard, which is loaded before the program, so that this leaves Unix paths alone that are served. Behind the options of Node:
 * where packages lie in an archive, those make that it is found.
 */
function guarded(command: CommandLine): CommandLine {
  const { args, nodeOptions = 0 } = command
  const guardFile = builtFile('guard.js')
  return guardFile !== undefined ? { ...command, args: [...args.slice(0, nodeOptions), '--require', guardFile, ...args.slice(nodeOptions)], nodeOptions: nodeOptions + 2 } : command
}

/** Starts `command` as a successor of this process, which serves these Unix `paths`. Throws HANDOVER_SPAWN. */
export async function launch(command: CommandLine, env: NodeJS.ProcessEnv, paths: readonly string[]): Promise<LaunchedSuccessor> {
  const inspected = await withOwnInspector(command, env)
  const [whole, itsEnv] = paths.length > 0 ? [guarded(inspected.command), { ...inspected.env, [pathsMark]: JSON.stringify(paths) }] : [inspected.command, inspected.env]
  const byShell = throughShell(whole.file, whole.args, process.argv0, activation().environment(itsEnv))
  const started = await startInspected(inspected, byShell ? { ...byShell, cwd: whole.cwd } : whole, itsEnv)
  return { channel: channelTo(started), pid: started.pid, child: started.child }
}
