/**
 * A load in a process of its own, so that nothing else disturbs the client's event loop. Forked by startLoadProcess().
 *
 * It sends a snapshot every 50 ms and whenever a process answers for the first time, and ends when told to stop or when its
 * parent is gone.
 */

import { type Load, startTalliedLoad } from './client.js'
import type { FromWorker, ToWorker } from './messages.js'

const snapshotMs = 50
let load: Load | undefined

function send(message: FromWorker, then?: () => void): void {
  process.send?.(message, undefined, undefined, () => then?.())
}

process.on('SIGINT', () => {}) // Ctrl-C goes to the whole group; the parent says when to stop
process.on('disconnect', () => process.exit())
process.on('message', (message: ToWorker) => {
  switch (message.type) {
    case 'start': {
      const started = startTalliedLoad(message.target, message.options)
      load = started.load
      const report = (): void => send({ type: 'stats', stats: started.load.stats() })
      started.tally.onNewVersion = report
      setInterval(report, snapshotMs)
      report()
      break
    }
    case 'mark':
      void load?.mark(message.name)
      send({ type: 'marked', id: message.id })
      break
    case 'stop':
      void load?.stop().then((result) => send({ type: 'stopped', result }, () => process.exit()))
      break
  }
})
