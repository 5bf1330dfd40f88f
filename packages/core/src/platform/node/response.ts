/** How a response ends: whether it is an event stream, has a length, is encoded, ends its connection, and that its client is told so. */

import type http from 'node:http'
import type http2 from 'node:http2'

const headOf = (response: http.ServerResponse): string => (response as unknown as { _header?: string | null })._header ?? ''

/** Whether it is a stream of server-sent events that has begun. Only `_header` shows what the program gave to writeHead(). */
export const isEventStream = (response: http.ServerResponse): boolean =>
  response.headersSent && /^content-type:[ \t]*text\/event-stream/im.test(headOf(response))

/** What the head of an answer of HTTP/2 gives for a lower-case name; undefined before there is a head. */
export function sentHeader({ sentHeaders }: http2.ServerHttp2Stream, wanted: string): string | undefined {
  // A program may write the name as it likes, and Node keeps it so.
  const headers = Object.entries(sentHeaders as http2.OutgoingHttpHeaders | undefined ?? {})
  return headers.find(([name]) => name.toLowerCase() === wanted)?.[1]?.toString()
}

/** Whether the head of the answer gives its length: then its client may have all of it before the application calls end(). */
export const hasLength = (response: http.ServerResponse): boolean => /^content-length:/im.test(headOf(response))

/** Whether the head of the answer has a content-encoding. */
export const isEncoded = (response: http.ServerResponse): boolean => /^content-encoding:/im.test(headOf(response))

/** Whether the connection ends with this answer: `shouldKeepAlive` does not know the head that the application wrote. */
export function endsConnection(response: http.ServerResponse): boolean {
  return (response as unknown as { _last?: boolean })._last === true
}

interface HeadMaker {
  _header?: string | null
  _last?: boolean
  _storeHeader?: (...args: unknown[]) => void
}

const isLast = /^connection:.*\b(?:close|upgrade)\b/im
const aboutConnection = /^(?:connection|keep-alive):/i

/** An upgrade stays one. */
function lastHead(head: string): string {
  if (isLast.test(head)) return head
  const lines = head.split('\r\n').slice(0, -2).filter((line) => !aboutConnection.test(line))
  return [...lines, 'Connection: close', '', ''].join('\r\n')
}

/**
 * The head of this answer will say that the connection ends with it, also where the program says keep-alive. It is changed when Node has
 * made it: a header that is set before changes what writeHead() does with a list of the program's. Node 20 then loses all cookies but the
 * last, and every Node throws at a list of pairs. Call the result to take it back. Without the private part of Node, what the program says
 * of the connection stands.
 */
export function endConnectionWith(response: http.ServerResponse): () => void {
  const maker = response as unknown as HeadMaker
  const store = maker._storeHeader
  const { shouldKeepAlive } = response
  response.shouldKeepAlive = false
  const storeLast = function (this: HeadMaker, ...args: unknown[]): void {
    store?.apply(this, args)
    const head = lastHead(this._header ?? '')
    if (head === this._header) return
    this._header = head
    this._last = true
  }
  if (typeof store === 'function') maker._storeHeader = storeLast
  return () => {
    response.shouldKeepAlive = shouldKeepAlive
    if (store && maker._storeHeader === storeLast) maker._storeHeader = store
  }
}
