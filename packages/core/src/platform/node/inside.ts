/** The private fields of Node that more than one file of this folder reads, as one type. */

import net from 'node:net'

type Inside = { _handle?: ListenHandle | null; _pipeName?: string; _parent?: net.Socket }

export const inside = (owner: object): Inside => owner

/** What Node keeps behind a symbol of its own; undefined where it has no such symbol. */
export function behindSymbol(owner: object, description: string): unknown {
  const symbol = Object.getOwnPropertySymbols(owner).find((candidate) => candidate.description === description)
  return symbol && (owner as Record<symbol, unknown>)[symbol]
}

/** `server._handle`: a TCP or Pipe wrap of libuv. */
export interface ListenHandle {
  readonly fd: number
  listen(backlog: number): number
  /** Set by Node on the handle of a server. */
  onconnection?(status: number, client: unknown): void
  close(callback?: () => void): void
  getsockname?(out: { address?: string; port?: number }): number
  hasRef?(): boolean
  unref?(): void
}
