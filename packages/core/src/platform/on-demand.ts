/**
 * Modules of Node that many programs never use, loaded when something is seen that only they make: tls, https and crypto alone took a third
 * of the time of requiring this package. What a program has not loaded, it has no objects of.
 */

import type cluster from 'node:cluster'
import type dgram from 'node:dgram'
import { closeSync, openSync, readSync } from 'node:fs'
import type https from 'node:https'
import type tls from 'node:tls'

const clusterModule = (): typeof cluster => process.getBuiltinModule('node:cluster') as unknown as typeof cluster

export const isMainThread = (): boolean => process.getBuiltinModule('node:worker_threads').isMainThread

export const isTlsServer = (server: object): server is tls.Server =>
  'setTicketKeys' in server && server instanceof process.getBuiltinModule('node:tls').Server

export const isTlsSocket = (socket: object): socket is tls.TLSSocket =>
  'encrypted' in socket && socket instanceof process.getBuiltinModule('node:tls').TLSSocket

export const isHttpsServer = (server: object): server is https.Server =>
  isTlsServer(server) && server instanceof process.getBuiltinModule('node:https').Server

let tlsListener: unknown

/** What Node's server of TLS does with a connection. */
export function nodesTlsListener(): unknown {
  return tlsListener ??= new (process.getBuiltinModule('node:tls').Server)().listeners('connection')[0]
}

export const isUdpSocket = (value: unknown): value is dgram.Socket =>
  typeof value === 'object' && value !== null && 'getSendBufferSize' in value &&
  value instanceof process.getBuiltinModule('node:dgram').Socket

/** Node itself loads it in the first listen(), which takes a millisecond. */
export const loadForListen = (): void => { clusterModule() }

/** A worker of node:cluster, whose listeners belong to its primary. Node has loaded cluster there; it has a channel to the primary. */
export const isClusterWorker = (): boolean => process.channel !== undefined && clusterModule().isWorker

export const hasClusterWorkers = (): boolean => Object.keys(clusterModule().workers ?? {}).length > 0

/** 128 random bits that cannot be guessed. The kernel has them at once; Node's crypto would first be loaded, within a listen(). */
export function secretWord(): string {
  try {
    const file = openSync('/dev/urandom', 'r')
    const bits = Buffer.alloc(16)
    const read = readSync(file, bits)
    closeSync(file)
    if (read === bits.length) return bits.toString('hex')
  } catch { /* a jail without /dev */ }
  return process.getBuiltinModule('node:crypto').randomBytes(16).toString('hex')
}

/** For names that must differ: not a secret. */
export const uniqueWord = (): string => Math.floor(Math.random() * 2 ** 48).toString(16).padStart(12, '0')
