/**
 * A strict parser of HTTP/1.1 answers (RFC 9112): a status line, headers, and a body by Content-Length or chunks.
 *
 * It answers only with whole answers, in order, and throws MalformedAnswer on anything else: a bare LF, both lengths at
 * once, a body whose end only the end of the connection would tell. Such an answer could be cut and nobody would know.
 * It does not know requests, sockets or time.
 */

export interface Answer {
  /** The status code. */
  readonly status: number
  /** Names in lower case; values of repeated fields joined by ', '. */
  readonly headers: ReadonlyMap<string, string>
  /** Whole, without its framing. */
  readonly body: Buffer
  /** The server says that it closes the connection after this answer. */
  readonly close: boolean
  /** How many bytes it took on the wire. */
  readonly bytes: number
}

export class MalformedAnswer extends Error {
  override readonly name = 'MalformedAnswer'
}

interface Head {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly close: boolean
}

/** What the next byte belongs to. */
type Place =
  | { readonly at: 'head' }
  | { readonly at: 'body'; readonly head: Head; left: number }
  | { readonly at: 'chunk size'; readonly head: Head }
  | { readonly at: 'chunk'; readonly head: Head; left: number }
  | { readonly at: 'chunk end'; readonly head: Head }
  | { readonly at: 'trailers'; readonly head: Head }

const longestHead = 64 * 1024
const longestBody = 16 * 1024 * 1024
const nothing = Buffer.alloc(0)

export class AnswerParser {
  #place: Place = { at: 'head' }
  #rest: Buffer = nothing
  #body: Buffer[] = []
  #bodyBytes = 0
  #bytes = 0

  /** Bytes that came of the answer that is not whole yet. */
  get partialBytes(): number {
    return this.#bytes + this.#rest.length
  }

  /** Takes what came from the socket, and gives the answers that became whole with it. */
  * feed(chunk: Buffer): Generator<Answer, void> {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    for (let step = this.#step(); step !== false; step = this.#step()) {
      if (step !== true) yield step
    }
  }

  /** Goes one step: a whole answer, true, or false when it needs more bytes. */
  #step(): Answer | boolean {
    const place = this.#place
    switch (place.at) {
      case 'head': {
        const head = this.#takeHead()
        if (head === undefined) return false
        if (head.status < 200) {
          this.#bytes = 0 // 100 Continue, 103 Early Hints: the answer comes after it
          return true
        }
        this.#place = bodyPlace(head)
        return this.#place.at === 'body' && this.#place.left === 0 ? this.#whole(head) : true
      }
      case 'body':
      case 'chunk': {
        if (this.#rest.length === 0) return false
        const taken = this.#take(Math.min(place.left, this.#rest.length))
        this.#body.push(taken)
        this.#bodyBytes += taken.length
        if (this.#bodyBytes > longestBody) throw new MalformedAnswer(`a body of more than ${longestBody} bytes`)
        place.left -= taken.length
        if (place.left > 0) return false
        if (place.at === 'body') return this.#whole(place.head)
        this.#place = { at: 'chunk end', head: place.head }
        return true
      }
      case 'chunk size': {
        const line = this.#takeLine()
        if (line === undefined) return false
        const size = /^([0-9a-fA-F]{1,8})(?:[ \t]*;.*)?$/.exec(line)
        if (size === null) throw new MalformedAnswer(`a chunk size was expected, found ${JSON.stringify(line.slice(0, 80))}`)
        const left = Number.parseInt(size[1]!, 16)
        this.#place = left === 0 ? { at: 'trailers', head: place.head } : { at: 'chunk', head: place.head, left }
        return true
      }
      case 'chunk end': {
        if (this.#rest.length < 2) return false
        const end = this.#take(2).toString('latin1')
        if (end !== '\r\n') throw new MalformedAnswer(`the end of a chunk was expected, found ${JSON.stringify(end)}`)
        this.#place = { at: 'chunk size', head: place.head }
        return true
      }
      case 'trailers': {
        const line = this.#takeLine()
        if (line === undefined) return false
        return line === '' ? this.#whole(place.head) : true
      }
    }
  }

  #whole(head: Head): Answer {
    const body = this.#body.length === 1 ? this.#body[0]! : Buffer.concat(this.#body)
    const answer = { ...head, body, bytes: this.#bytes }
    this.#place = { at: 'head' }
    this.#body = []
    this.#bodyBytes = 0
    this.#bytes = 0
    return answer
  }

  #take(count: number): Buffer {
    const taken = this.#rest.subarray(0, count)
    this.#rest = this.#rest.subarray(count)
    this.#bytes += count
    return taken
  }

  #takeHead(): Head | undefined {
    const end = this.#rest.indexOf('\r\n\r\n')
    if (end === -1) {
      const start = this.#rest.subarray(0, 7).toString('latin1')
      if (!'HTTP/1.'.startsWith(start)) throw new MalformedAnswer(`"HTTP/1." was expected, found ${JSON.stringify(start)}`)
      if (this.#rest.length > longestHead) throw new MalformedAnswer(`a head of more than ${longestHead} bytes`)
      return undefined
    }
    return parseHead(this.#take(end + 4).toString('latin1', 0, end))
  }

  #takeLine(): string | undefined {
    const end = this.#rest.indexOf('\r\n')
    if (end === -1) {
      if (this.#rest.length > longestHead) throw new MalformedAnswer(`a line of more than ${longestHead} bytes`)
      return undefined
    }
    return this.#take(end + 2).toString('latin1', 0, end)
  }
}

function parseHead(text: string): Head {
  const [statusLine, ...fields] = text.split('\r\n')
  const status = /^HTTP\/1\.([01]) (\d{3})(?: .*)?$/.exec(statusLine!)
  if (status === null) throw new MalformedAnswer(`a status line was expected, found ${JSON.stringify(statusLine!.slice(0, 80))}`)
  const headers = new Map<string, string>()
  for (const field of fields) {
    const colon = field.indexOf(':')
    const name = field.slice(0, colon).toLowerCase()
    if (colon < 1 || !/^[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(name) || field.includes('\n')) {
      throw new MalformedAnswer(`a header was expected, found ${JSON.stringify(field.slice(0, 80))}`)
    }
    const value = field.slice(colon + 1).trim()
    const before = headers.get(name)
    headers.set(name, before === undefined ? value : `${before}, ${value}`)
  }
  const connection = (headers.get('connection') ?? '').toLowerCase().split(/\s*,\s*/)
  const close = connection.includes('close') || (status[1] === '0' && !connection.includes('keep-alive'))
  return { status: Number(status[2]), headers, close }
}

function bodyPlace(head: Head): Place {
  if (head.status === 204 || head.status === 304) return { at: 'body', head, left: 0 }
  const coding = head.headers.get('transfer-encoding')
  const length = head.headers.get('content-length')
  if (coding !== undefined) {
    if (length !== undefined) throw new MalformedAnswer('both Transfer-Encoding and Content-Length')
    if (coding.toLowerCase() !== 'chunked') throw new MalformedAnswer(`Transfer-Encoding: ${coding}`)
    return { at: 'chunk size', head }
  }
  if (length === undefined) throw new MalformedAnswer('neither Content-Length nor chunks: nobody could tell whether it is whole')
  if (!/^\d{1,15}$/.test(length)) throw new MalformedAnswer(`Content-Length: ${length}`)
  return { at: 'body', head, left: Number(length) }
}
