/** How a response ends: whether it is an event stream, has a length, is encoded, ends its connection. */

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
