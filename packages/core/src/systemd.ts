/**
 * Tells systemd (Type=notify and notify-reload) what happens, as sd_notify(3) does. Does nothing without NOTIFY_SOCKET.
 * systemd follows the service to its successor by MAINPID.
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
