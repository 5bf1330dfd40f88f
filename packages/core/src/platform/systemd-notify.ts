/**
 * Tells systemd (Type=notify and notify-reload) what happens, as sd_notify(3) does. Does nothing without NOTIFY_SOCKET. systemd
 * follows the service to its successor by MAINPID.
 *
 * Without a keeper systemd can hold checkpoints (FileDescriptorStoreMax=): it gives them to the next process of the service, where
 * this one crashes.
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
