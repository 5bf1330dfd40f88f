/**
 * Loaded into a server before its own program (node --import): writes the reports that the process makes to stderr, as lines of JSON after
 * reportMarker. The server need not know of it, and its own log may go anywhere.
 */

import { subscribe } from 'node:diagnostics_channel'
import type { Report } from '@handover/core'
import { reportMarker } from './client/messages.js'

subscribe('handover:report', (message) => {
  const report = message as Report
  // The successor hears the predecessor's last report as well.
  if (report.predecessor.pid === process.pid) process.stderr.write(`${reportMarker}${JSON.stringify(report)}\n`)
})
