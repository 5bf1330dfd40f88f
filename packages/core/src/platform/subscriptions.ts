/**
 * What this copy of the package hears of all servers and requests of the process (node:diagnostics_channel).
 *
 * Some test runners (Jest, the vm pools of Vitest) give each file of tests a global object of its own, load the package anew for it, and
 * leave the copy of the file before behind. That copy must hear nothing more: it would track each server of every later file.
 */

import { subscribe as hear, unsubscribe } from 'node:diagnostics_channel'
import net from 'node:net'
import vm from 'node:vm'

type Listener = Parameters<typeof hear>[1]

const mine: (readonly [channel: string, listener: Listener])[] = []

export function subscribe(channel: string, listener: Listener): void {
  mine.push([channel, listener])
  hear(channel, listener)
}

/** In the one world that is the same for all copies: Node's own modules. */
const place: unique symbol = Symbol.for('@handover/core subscriptions')
const shared = net.Server as unknown as Record<typeof place, (() => void) | undefined>

/** This copy is that of the process now. One that is not of a world apart is left alone: it may serve. */
export function takeSubscriptions(): void {
  shared[place]?.()
  shared[place] = () => {
    if (vm.runInThisContext('globalThis') === globalThis) return
    for (const [channel, listener] of mine.splice(0)) unsubscribe(channel, listener)
  }
}
