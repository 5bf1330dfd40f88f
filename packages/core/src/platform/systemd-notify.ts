/**
 * Notifies systemd (Type=notify and notify-reload) as sd_notify(3), if there is a NOTIFY_SOCKET. MAINPID leads it to the successor.
 *
 * Without a keeper systemd can hold checkpoints (FileDescriptorStoreMax=): if this process crashes, the next one gets them.
 */

import { native } from './native.js'

export function notifySystemd(fields: Readonly<Record<string, string | number>>): void {
  const path = process.env['NOTIFY_SOCKET']
  if (path === undefined || path === '' || !native) return
  const text = Object.entries(fields).map(([key, value]) => `${key}=${value}`).join('\n')
  // systemd may be gone or slow; that must not stop a server.
  native.sendDatagram(path, Buffer.from(text))
}

/** Type=notify-reload wants CLOCK_MONOTONIC in microseconds beside RELOADING=1. */
export const reloadNotice = (): Record<string, string | number> =>
  ({ RELOADING: 1, MONOTONIC_USEC: String(process.hrtime.bigint() / 1000n) })

// ---- the store of descriptors ----

/** Begins the name of a checkpoint; other descriptors of the service are not ours. */
export const storedName = 'handover-'
/** LISTEN_FDS begins there. */
export const firstListenFd = 3
