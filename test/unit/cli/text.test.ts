/** What goes to a terminal and comes from an app, which may be that of another user. */

import { expect, it } from 'vitest'
import { printableLines } from '../../helpers/internals.js'

it('text of several lines keeps its lines and tabs; colours go, and nothing else reaches the terminal', () => {
  const text = 'Error: \u001b[1;31mno database\u001b[0m\n\tat x\u001b]0;title\u0007\n\u009b2J\u202e\r\u0008'
  expect(printableLines(text)).toBe('Error: no database\n\tat x\u{fffd}]0;title\u{fffd}\n\u{fffd}2J\u{fffd}\u{fffd}\u{fffd}')
})
