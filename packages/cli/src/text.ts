/** Numbers, times and ends of processes for people, and columns of them. Pure. */

import type { ProcessEnd } from '@handover/core/internal'

export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  const seconds = Math.round(ms / 1_000)
  if (seconds < 120) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 120) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`
}

export const number = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, ',')

export const plural = (count: number, noun: string): string => `${number(count)} ${noun}${count === 1 ? '' : 's'}`

export const megabytes = (bytes: number): string => `${number(Math.round(bytes / 1_048_576))} MB`

export const size = (bytes: number): string =>
  (bytes < 1_024 ? `${bytes} B` : bytes < 1_048_576 ? `${number(Math.round(bytes / 1_024))} kB` : megabytes(bytes))

/** Of a process, after "ended ". It is not known of a process that another keeper started. */
export const byWhat = ({ code, signal }: ProcessEnd): string =>
  (signal !== null ? `by ${signal}` : code === null ? 'in an unknown way' : `with status ${code}`)

/** `at`: as Date.now(). In UTC, so that it is the same for all readers. */
export const moment = (at: number): string => `${new Date(at).toISOString().slice(0, 16).replace('T', ' ')} UTC`

export const cut = (text: string, most: number): string => (text.length > most ? `${text.slice(0, most - 1)}…` : text)

/** The name of an app after its package: `@acme/shop` → `acme-shop`. Empty if nothing is left. */
export const nameOfPackage = (text: string): string =>
  text.replace(/^@/, '').replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^\.+/, '').slice(0, 64)

/** A name or a path may hold control characters for the terminal. */
// eslint-disable-next-line no-control-regex
export const printable = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '\u{fffd}')

/** The same for text of several lines, which keeps these and its tabs. Colours go. */
export function printableLines(text: string): string {
  // eslint-disable-next-line no-control-regex
  const plain = text.replace(/\u001b\[[\d;]*m/g, '')
  return plain.replace(/[^\n\t]+/g, printable)
}

/** A piece of text that `wrap` does not break. */
export const whole = (text: string): string => text.replace(/ /g, '\u{a0}')

/** Breaks between words into lines of at most `width`. Every line after the first begins with `indent`. A longer word stands alone. */
export function wrap(text: string, width: number, indent: string): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].join(`\n${indent}`).replace(/\u{a0}/gu, ' ')
}
