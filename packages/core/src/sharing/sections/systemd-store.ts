/** Checkpoints in systemd's store of descriptors (FDSTORE=1, FileDescriptorStoreMax=), for a process without a keeper. */

import { native } from '../../platform/native.js'
import { firstListenFd, notifySystemd, storedName } from '../../platform/systemd-notify.js'

/** Of systemd, for a name; it may hold no colon, and nothing but ASCII. */
const longestStoredName = 255

const nameInStore = (name: string): string => storedName + encodeURIComponent(name)

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/**
 * What stands in the way of a checkpoint in systemd's store; undefined where nothing that is known here does. systemd before 254 does not
 * say whether there is one.
 */
export function cannotStore(env: NodeJS.ProcessEnv, name: string): string | undefined {
  if ((env['NOTIFY_SOCKET'] ?? '') === '' || !native) return 'this process was not started by systemd (Type=notify)'
  if (env['FDSTORE'] === '0') return 'FileDescriptorStoreMax= of the service is 0'
  return nameInStore(name).length > longestStoredName ? `its name has more than ${longestStoredName - storedName.length} characters, as systemd counts them` : undefined
}

/**
 * The checkpoints that systemd held for this process, to be asked once: the descriptors are the caller's. Those of sockets, and of other
 * names, stay as they are. sd_listen_fds_with_names(3)
 */
export function storedCheckpoints(env: NodeJS.ProcessEnv): { readonly name: string; readonly fd: number }[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count = '', LISTEN_FDNAMES: names = '' } = env
  if (pid !== String(process.pid) || !/^\d{1,4}$/.test(count)) return []
  return names.split(':').slice(0, Number(count)).flatMap((stored, index) => {
    const name = stored.startsWith(storedName) ? decoded(stored.slice(storedName.length)) : undefined
    return name === undefined ? [] : [{ name, fd: firstListenFd + index }]
  })
}

/**
 * Leaves a checkpoint with systemd, in place of the one before. The descriptor stays the caller's. False where it cannot be sent.
 * sd_pid_notify_with_fds(3)
 */
export function storeCheckpoint(name: string, fd: number): boolean {
  const path = process.env['NOTIFY_SOCKET']
  if (cannotStore(process.env, name) !== undefined || path === undefined || !native) return false
  forgetCheckpoint(name)
  return native.sendDatagram(path, Buffer.from(`FDSTORE=1\nFDNAME=${nameInStore(name)}`), [fd]) > 0
}

/** Its state went along, or was given up: the next process must not have it. */
export function forgetCheckpoint(name: string): void {
  notifySystemd({ FDSTOREREMOVE: 1, FDNAME: nameInStore(name) })
}
