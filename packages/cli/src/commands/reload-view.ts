/**
 * How a reload looks while it runs: lines of JSON, plain lines, or a picture on a terminal that is drawn again and again.
 *
 * The picture counts time by itself between two events. A terminal that is too narrow cuts its lines; one that changes its width meanwhile
 * has wrapped what was drawn before, and that is reckoned with.
 */

import { inspect } from 'node:util'
import type { ReloadEvent } from '@handover/core/internal'
import { duration, printable } from '../text.js'

export interface ReloadView {
  /** `text`: for people; empty where the event has no line of its own. */
  hear(text: string, event: ReloadEvent): void
  end(): void
}

/** A terminal, as far as a picture needs one. */
export interface Screen {
  readonly columns: number
  readonly rows: number
  write(text: string): unknown
}

export const jsonView = (print: (text: string) => void): ReloadView => ({
  hear: (text, event) => { print(`${JSON.stringify({ ...event, ...(text !== '' && { text }) })}\n`) },
  end: () => undefined
})

/** Each change once. */
export function linesView(print: (text: string) => void): ReloadView {
  const said = new Set<string>()
  return {
    hear: (text, event) => {
      const line = text === '' ? stepLine(event) : text
      if (line !== '' && !said.has(line)) print(`${line}\n`)
      said.add(line)
    },
    end: () => undefined
  }
}

function stepLine({ event, slot, pid, ms }: ReloadEvent): string {
  const where = slot === undefined ? '' : `slot ${slot}: `
  if (event === 'boots') return `${where}process ${pid} boots`
  if (event === 'prepares') return `${where}process ${pid} has booted and prepares`
  return event === 'ready' ? `${where}process ${pid} is ready, ${duration(ms)} after the reload began` : ''
}

/** What is known of one slot, or of the only process. */
interface Row {
  readonly slot: number | undefined
  step: 'starts' | 'boots' | 'prepares' | 'ready' | 'serves' | 'drains'
  pid?: number | undefined
  generation?: number | undefined
  /** Of the reload, when the step began. */
  sinceMs: number
  line: string
  forMs?: number | undefined
}

const frames = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏'
const drawMs = 100
const says = { starts: 'starts', boots: 'boots', prepares: 'prepares', ready: 'is ready', serves: 'serves', drains: 'drains' } as const

/** What was heard, and the lines that show it. Pure. */
export class ReloadPicture {
  readonly #title: string
  readonly #colours: boolean
  readonly #rows = new Map<number | undefined, Row>()
  #slots = 1
  #bake: { readonly sinceMs: number; readonly forMs: number } | undefined

  constructor(title: string, colours: boolean) {
    this.#title = printable(title)
    this.#colours = colours
  }

  hear({ event, ms, slot, slots = this.#slots, pid, generation, line, forMs }: ReloadEvent): void {
    this.#slots = slots
    if (event === 'bakes') {
      this.#bake = { sinceMs: ms, forMs: forMs ?? 0 }
      return
    }
    // All drain: said once without a slot.
    if (event === 'drains' && pid === undefined) return
    const row: Row = this.#rows.get(slot) ?? { slot, step: 'starts', sinceMs: ms, line: '' }
    this.#rows.set(slot, row)
    if (event === 'stderr') {
      row.line = printable(line ?? '')
      return
    }
    Object.assign(row, { pid: pid ?? row.pid, generation: generation ?? row.generation, forMs })
    if (row.step !== event || event === 'drains') Object.assign(row, { step: event, sinceMs: ms })
  }

  /** `ms`: since the reload began. At most so many lines. */
  lines(ms: number, most = Infinity): string[] {
    const rows = [...this.#rows.values()].sort((one, other) => (one.slot ?? 0) - (other.slot ?? 0))
    const serve = rows.filter(({ step }) => step === 'serves' || step === 'drains').length
    const count = this.#slots > 1 ? ` · ${serve} of ${this.#slots} slots serve the new version` : ''
    const head = `${frames[Math.floor(ms / drawMs) % frames.length]} reload of ${this.#title} · ${seconds(ms)}${count}`
    const left = this.#bake && this.#bake.sinceMs + this.#bake.forMs - ms
    const bake = left !== undefined && left > 0 ? [`  is watched: ${seconds(left)} left`] : []
    // Where there is no room for all slots, those that are done are left out first.
    const room = Math.max(1, most - 1 - bake.length)
    const busy = rows.filter(({ step }) => step !== 'serves')
    const shown = rows.length <= room ? rows : busy.slice(-room)
    return [this.#style('bold', head), ...shown.map((row) => this.#row(row, ms)), ...bake.map((text) => this.#style('cyan', text))]
  }

  #row({ slot, step, pid, generation, sinceMs, line, forMs }: Row, ms: number): string {
    const where = slot === undefined ? '' : `slot ${slot} (${slot + 1} of ${this.#slots}) `
    const who = pid === undefined ? '' : `process ${pid}${generation === undefined ? '' : ` (generation ${generation})`} `
    const after = step === 'serves' ? ` after ${seconds(sinceMs)}`
      : step === 'drains' ? (forMs === undefined ? '' : `: ${seconds(Math.max(0, forMs - (ms - sinceMs)))} left at most`)
      : ` ${seconds(ms - sinceMs)}`
    const last = line !== '' && step !== 'serves' && step !== 'drains' ? `  ${this.#style('dim', line)}` : ''
    return `  ${where}${who}${this.#style(step === 'serves' ? 'green' : 'yellow', says[step])}${after}${last}`
  }

  #style(style: 'bold' | 'dim' | 'green' | 'yellow' | 'cyan', text: string): string {
    // styleText() of util asks whether standard output is a terminal, each version in its own way.
    const [on, off] = this.#colours ? inspect.colors[style]! : []
    return on === undefined ? text : `\u001b[${on}m${text}\u001b[${off}m`
  }
}

const seconds = (ms: number): string => `${(Math.max(0, ms) / 1_000).toFixed(1)} s`

// eslint-disable-next-line no-control-regex
const styles = /\u001b\[\d+m/g
/** Wide characters of East Asia and pictures take two columns. */
const wide = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u
const widthOf = (text: string): number => Array.from(text.replace(styles, '')).reduce((sum, each) => sum + (wide.test(each) ? 2 : 1), 0)

/** Cut to so many columns; what is styled is ended. */
export function fitted(line: string, columns: number): string {
  if (widthOf(line) <= columns) return line
  let [text, width] = ['', 0]
  for (const piece of line.split(/(\u001b\[\d+m)/)) { // eslint-disable-line no-control-regex
    if (piece.startsWith('\u001b')) {
      text += piece
      continue
    }
    for (const each of piece) {
      width += widthOf(each)
      if (width > columns - 1) return `${text}…${line.includes('\u001b') ? '\u001b[0m' : ''}`
      text += each
    }
  }
  return text
}

/** Draws on a terminal until `end`, which leaves nothing of the picture. */
export function liveView(title: string, screen: Screen, colours: boolean): ReloadView {
  const picture = new ReloadPicture(title, colours)
  const begun = performance.now()
  let drawn: readonly string[] = []
  /** To the beginning of what was drawn, as the terminal shows it at its width of now. */
  const back = (): string => {
    const rows = drawn.reduce((sum, line) => sum + Math.max(1, Math.ceil(widthOf(line) / Math.max(1, screen.columns))), 0)
    return `\r${rows > 1 ? `\u001b[${rows - 1}A` : ''}\u001b[J`
  }
  const draw = (): void => {
    const columns = Math.max(1, screen.columns)
    const lines = picture.lines(performance.now() - begun, Math.max(2, screen.rows - 1)).map((line) => fitted(line, columns - 1))
    screen.write(`${back()}${lines.join('\n')}`)
    drawn = lines
  }
  const timer = setInterval(draw, drawMs)
  return {
    hear: (_text, event) => {
      picture.hear(event)
      draw()
    },
    end: () => {
      clearInterval(timer)
      screen.write(back())
      drawn = []
    }
  }
}

/** The picture only where somebody sees it. */
export function viewFor(title: string, json: boolean): ReloadView {
  const { stdout, env } = process
  const print = (text: string): void => { stdout.write(text) }
  if (json) return jsonView(print)
  if (!stdout.isTTY || env['TERM'] === 'dumb') return linesView(print)
  return liveView(title, stdout, (env['NO_COLOR'] ?? '') === '')
}
