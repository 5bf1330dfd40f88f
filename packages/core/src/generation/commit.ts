/** The commit of a successor: from here on it accepts, and takes the connections of its predecessor. */

import { closeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { GiveBackError, type Arrivals } from '../connections/connection-receiver.js'
import { speaksHttp2 } from '../connections/connection.js'
import { textOf } from '../errors.js'
import { acceptOnAll } from '../handover/announcements.js'
import { movesKind } from '../options.js'
import { descriptorRoom } from '../platform/descriptor-room.js'
import { native } from '../platform/native.js'
import { isTlsServer } from '../platform/on-demand.js'
import { notifySystemd } from '../platform/systemd-notify.js'
import type { MovedConnection, Takes } from '../protocol/handover-messages.js'
import { accepts } from '../protocol/lifecycle.js'
import type { GenerationContext } from './generation-context.js'
import { beAskable, tellKeeper } from './listening.js'

/** Accepts. Answers what it can take of the predecessor's connections. */
export function serve(context: GenerationContext): Takes | undefined {
  const { host, lifecycle, state, startup: { predecessor }, paths, keeper } = context
  // Before the move: its listeners may tell clients to connect at once.
  acceptOnAll(context)
  lifecycle.move('ready', { is: 'serving' })
  state.began()
  if (predecessor) {
    // The predecessor's end must not remove the paths that this process serves.
    paths.hold()
    state.connect('predecessor', predecessor.channel, predecessor.predecessor)
  }
  state.serves()
  // Under a keeper, stderr leads there until the reload is done: the last lines of a crash belong into the error.
  if (!keeper) host.inherited.stderr?.restore()
  tellKeeper(context)
  notifySystemd({ READY: 1, MAINPID: host.pid })
  // Two turns: the predecessor stops accepting, and what waits is accepted, before this.
  host.clock.setImmediate(() => host.clock.setImmediate(() => { beFound(context) }))
  return takes(context)
}

/** Opens the control sockets. That may come after the commit: the kernel queues whoever connects meanwhile. */
function beFound(context: GenerationContext): void {
  const { controlSockets, lifecycle, registry } = context
  // This process is stopping by now, or the program has closed all its listeners.
  if (!accepts(lifecycle.state.is) || registry.listeners.length === 0) return
  controlSockets.serve()
  beAskable(context)
}

function takes({ support, servers, registry, applicationMoves, settings }: GenerationContext): Takes | undefined {
  if (!support.canMove()) return undefined
  const listeners = registry.listeners.filter(({ owner }) => owner instanceof http.Server)
  const http2 = registry.listeners.filter(
    ({ owner }) => owner instanceof net.Server && speaksHttp2(owner) && movesKind(settings.move, 'http2')
  )
  const atOnce = native?.epoll && listeners.every(({ owner }) => servers.connectionsOf(owner)?.takesAll === true)
  const secure = support.canMoveTls() ? registry.listeners.filter(({ owner }) => isTlsServer(owner)) : undefined
  return {
    listeners: listeners.map(({ about }) => about.name), kinds: applicationMoves.kinds, room: descriptorRoom(),
    ...(http2.length > 0 && { http2: http2.map(({ about }) => about.name) }),
    ...(secure && { tls: secure.map(({ about }) => about.name) }), ...(atOnce === true && !secure?.length && { atOnce })
  }
}

/** The connections of the predecessor. */
export function movedConnections(context: () => GenerationContext): Arrivals {
  const givenBack = new Set<string>()
  return {
    receive: (fd, about, acknowledged, keys) => takeMoved(context(), { fd, about, acknowledged, keys }, givenBack),
    waitsAt({ kind, listener, tls }) {
      if (tls) return undefined
      const { servers, registry } = context()
      const connections = kind === 'http' ? servers.connectionsOf(registry.named(listener)?.owner) : undefined
      return connections?.takesAll === true ? connections : undefined
    }
  }
}

interface Arrival {
  readonly fd: number
  readonly about: MovedConnection
  readonly acknowledged: boolean
  readonly keys: readonly Buffer[] | undefined
}

/** Answers false where it is given back. */
function takeMoved(context: GenerationContext, { fd, about, acknowledged, keys }: Arrival, givenBack: Set<string>): boolean {
  const { servers, registry, applicationMoves, startup, log } = context
  const connections = servers.connectionsOf(registry.named(about.listener)?.owner)
  try {
    if (about.kind !== 'http') applicationMoves.take(fd, about, connections, keys)
    else if (connections) connections.receive(fd, about, keys)
    else {
      closeSync(fd)
      throw new Error(`nothing listens as "${about.listener}" any more`)
    }
    return true
  } catch (error) {
    const closed = acknowledged || error instanceof GiveBackError
    if (closed) log('error', `a connection of kind "${about.kind}" that was moved here is closed: ${textOf(error)}`)
    else if (!givenBack.has(about.kind)) {
      givenBack.add(about.kind)
      log('warn', `a connection of kind "${about.kind}" is given back to process ${startup.predecessor?.predecessor.pid ?? '?'}, which drains it (others are not logged): ${textOf(error)}`)
    }
    return closed
  }
}
