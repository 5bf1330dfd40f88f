/**
 * Tells systemd (Type=notify and notify-reload) what happens, as sd_notify(3) does. Does nothing without NOTIFY_SOCKET.
 * systemd follows the service to its successor by MAINPID.
 *
 * Without a keeper systemd can hold checkpoints (FileDescriptorStoreMax=): it gives them to the next process of the service, where this one crashes.
 */

import { native } from './native.js'

export function notifySystemd(fields: Readonly<Record<string, string | number>>): void {
  const path = process.env['NOTIFY_SOCKET']
  if (path === undefined || path === '' || !native) return
  const text = Object.entries(fields).map(([key, value]) => `${key}=${value}`).join('\n')
  // systemd may be gone or slow; that must not stop a server.
  native.sendDatagram(path, Buffer.from(text))
}

/** CLOCK_MONOTONIC in microseconds, which Type=notify-reload wants beside RELOADING=1. */
export const monotonicMicroseconds = (): string => String(process.hrtime.bigint() / 1000n)

// ---- the store of descriptors ----

/** What systemd calls a checkpoint; other descriptors of the service are somebody else's. */
export const storedName = 'handover-'
/** LISTEN_FDS begins there. */
export const firstListenFd = 3
/** Of systemd, for a name; it may hold no colon, and nothing but ASCII. */
const longestStoredName = 255

const nameInStore = (name: string): string => storedName + encodeURIComponent(name)

/** What stands in the way of a checkpoint in systemd's store; undefined where nothing that is known here does. systemd before 254 does not say whether there is one. */
export function cannotStore(env: NodeJS.ProcessEnv, name: string): string | undefined {
  if ((env['NOTIFY_SOCKET'] ?? '') === '' || !native) return 'this process was not started by systemd (Type=notify)'
  if (env['FDSTORE'] === '0') return 'FileDescriptorStoreMax= of the service is 0'
  return nameInStore(name).length > longestStoredName ? `its name has more than ${longestStoredName - storedName.length} characters, as systemd counts them` : undefined
}

/**
 * The checkpoints that systemd held for this process, to be asked once: the descriptors are the caller's. Those of sockets, and of other names, stay as they are. sd_listen_fds_with_names(3)
 */
export function storedCheckpoints(env: NodeJS.ProcessEnv): { readonly name: string; readonly fd: number }[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count = '', LISTEN_FDNAMES: names = '' } = env
  if (pid !== String(process.pid) || !/^\d{1,4}$/.test(count)) return []
  return names.split(':').slice(0, Number(count)).flatMap((stored, index) => {
    const name = stored.startsWith(storedName) ? decoded(stored.slice(storedName.length)) : undefined
    return name === undefined ? [] : [{ name, fd: firstListenFd + index }]
  })
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** Leaves a checkpoint with systemd, in place of the one before. The descriptor stays the caller's. False where it cannot be sent. sd_pid_notify_with_fds(3) */
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
