/** What a response knows of its own end: whether it is an event stream, has a length, is encoded, ends its connection. */

import http from 'node:http'

/**
 * Whether this response is one of server-sent events that has begun. `getHeader` does not know what went to writeHead(); `_header` does.
 */
export function isEventStream(response: http.ServerResponse): boolean {
  if (!response.headersSent) return false
  const { _header: head } = response as unknown as { _header?: string | null }
  return /^content-type:[ \t]*text\/event-stream/im.test(head ?? '')
}

/** Whether the answer, whose head is written, says how long it is: then its client has it before the application calls end(), maybe. */
export function hasLength(response: http.ServerResponse): boolean {
  return /^content-length:/im.test((response as unknown as { _header?: string | null })._header ?? '')
}

/** Whether the answer, whose head is out, has a content-encoding. */
export function isEncoded(response: http.ServerResponse): boolean {
  return /^content-encoding:/im.test((response as unknown as { _header?: string | null })._header ?? '')
}

/**
 * Whether the connection ends with this answer, as far as its head is written: `shouldKeepAlive` does not know what the application's head
 * says.
 */
export function endsConnection(response: http.ServerResponse): boolean {
  return (response as unknown as { _last?: boolean })._last === true
}
