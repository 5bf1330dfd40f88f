/**
 * What a worker does when its keeper asks for it: it accepts from the listeners of a worker that is down, keeps what others have opened
 * for a listen() of its own program, and answers a probe before it accepts anything of its own.
 */

import { closeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import type { ListenerRegistry } from '../listeners/listener-registry.js'
import { adoptDescriptor } from '../platform/node/connection-handle.js'
import { acceptAlso } from '../platform/node/listen-handle.js'
import { isHttpsServer, isTlsServer } from '../platform/on-demand.js'
import { standGuard } from '../platform/path-guard.js'
import type { OfferedSocket } from '../protocol/handover-messages.js'
import type { ServerProtocol, Spoken } from '../protocol/keeper-messages.js'

export class CoveredListeners {
  readonly #registry: ListenerRegistry
  readonly #warn: (line: string) => void
  #closers: ((stops: boolean) => void)[] = []
  #lent: OfferedSocket[] = []

  constructor(registry: ListenerRegistry, warn: (line: string) => void) {
    this.#registry = registry
    this.#warn = warn
  }

  /**
   * Accepts from exactly these beside its own, and keeps the spares among them, which other workers opened after this one had started.
   * Where it `accepts` nothing any more, they are closed.
   */
  cover(listeners: readonly OfferedSocket[], accepts: boolean): void {
    const before = this.#closers
    this.#closers = []
    this.#takeBack()
    for (const { about, fd } of listeners) {
      const owner = this.#registry.named(about.name)?.owner
      if (accepts && about.spare === true && !owner) {
        this.#lend({ about, fd })
        continue
      }
      // This process drains, or does not listen any more, or has just begun to: the keeper is about to hear that.
      if (!accepts || about.spare === true || !(owner instanceof net.Server) || !owner.listening) {
        closeSync(fd)
        continue
      }
      try {
        this.#closers.push(acceptAlso(owner, fd, about.backlog))
      } catch (error) {
        this.#warn(`connections that wait for another worker on ${about.name} cannot be accepted here: ${(error as Error).message}`)
      }
    }
    for (const close of before) close(false)
  }

  #lend(socket: OfferedSocket): void {
    this.#lent.push(socket)
    this.#registry.giveBack(socket)
    // The program may remove the path before it listens there.
    if (socket.about.kind === 'unix') standGuard()
  }

  #takeBack(): void {
    for (const socket of this.#lent.splice(0)) if (this.#registry.withdraw(socket)) closeSync(socket.fd)
  }

  /** `stops`: the service ends, and no process accepts what is queued after this one. */
  close(stops: boolean): void {
    this.#takeBack()
    for (const close of this.#closers.splice(0)) close(stops)
  }
}

function protocolOf(server: net.Server): ServerProtocol {
  // http2 exports no class of its servers.
  if ('updateSettings' in server) return isTlsServer(server) ? 'http2-tls' : 'http2'
  if (isHttpsServer(server)) return 'https'
  return server instanceof http.Server ? 'http' : 'other'
}

/** What is spoken on each listener. */
export function spoken(registry: ListenerRegistry): Spoken[] {
  return registry.listeners.flatMap(({ owner, about }) =>
    (owner instanceof net.Server ? [{ listener: about.name, protocol: protocolOf(owner) }] : []))
}

/** Serves one connection as if it had come by this listener. */
export function serveProbe(registry: ListenerRegistry, listener: string, fd: number): void {
  const owner = registry.named(listener)?.owner
  if (!(owner instanceof net.Server)) {
    closeSync(fd)
    return
  }
  owner.emit('connection', adoptDescriptor(fd, owner))
}
