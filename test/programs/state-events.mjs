// Loaded before an example (node --import), in each of its generations: prints what happens as JSON lines.
//   CLOCK_FILE   milliseconds since the epoch: where it is given, Date.now() stands there until a test writes something else
import { readFileSync } from 'node:fs'
import { handover } from '@handover/core'
import { printEvents } from './print.mjs'

const { CLOCK_FILE } = process.env
printEvents(handover)
if (CLOCK_FILE) Date.now = () => Number(readFileSync(CLOCK_FILE, 'utf8'))
