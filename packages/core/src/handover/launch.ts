/** Starts a successor by the command that a person would type, and opens the channel to it. */

import { activation, throughShell } from '../platform/activated-sockets.js'
import { guarded, type CommandLine } from '../platform/command-line.js'
import { withOwnInspector } from '../platform/inspector-port.js'
import { startInspected, type SpawnedChild, type SpawnedProcess } from '../platform/spawn.js'
import { openChannel, type Channel } from '../protocol/channel.js'
import { handoverMessages } from '../protocol/handover-messages.js'

/** A successor, whether this process started it or it called. */
export interface LaunchedSuccessor {
  readonly channel: Channel
  /** 0 where it is not known (another pid namespace). */
  readonly pid: number
  /** Absent where this process did not start it. */
  readonly child?: SpawnedChild
}

export const channelTo = ({ messages, descriptors }: Pick<SpawnedProcess, 'messages' | 'descriptors'>): Channel =>
  openChannel(messages, descriptors, handoverMessages)

/** Starts `command` as a successor of this process, which serves these Unix `paths`. Throws HANDOVER_SPAWN. */
export async function launch(command: CommandLine, env: NodeJS.ProcessEnv, paths: readonly string[]): Promise<LaunchedSuccessor> {
  const inspected = await withOwnInspector(command, env)
  const { command: whole, env: itsEnv } = guarded(inspected, paths)
  const byShell = throughShell(whole.file, whole.args, process.argv0, activation().environment(itsEnv))
  const started = await startInspected(inspected, byShell ? { ...byShell, cwd: whole.cwd } : whole, itsEnv, { withoutFork: true })
  return { channel: channelTo(started), pid: started.pid, child: started.child }
}
