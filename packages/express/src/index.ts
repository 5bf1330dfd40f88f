/**
 * @handover/express: makes an Express 4 or 5 app reloadable, whether `app.listen` or the user makes the server.
 *
 * Every HTTP server of the program is adopted when it listens.
 */

import { inspect } from 'node:util'
import { handover as core, HandoverError, type Handover, type HandoverOptions } from '@handover/core'
import { adoptRequestListener } from '@handover/core/internal'
import type { Server } from 'node:http'

// What a program infers from `app.handover` has a name here too: where packages are strictly apart (pnpm), it finds none in core.
export type * from '@handover/core'

/** What this package needs of an Express application. `lazyrouter` exists in Express 4 only. */
interface ExpressApp {
  (...args: never[]): unknown
  listen(...args: never[]): Server
  lazyrouter?: unknown
}

/**
 * Returns the same app, with this process as `app.handover`: `share()`, `reload()`, `events` and so on. `options` belong to the
 * process; times are in milliseconds. Throws HANDOVER_OPTION.
 */
function handover<T extends ExpressApp>(app: T, options: HandoverOptions = {}): T & { readonly handover: Handover } {
  if (typeof app !== 'function') {
    throw new HandoverError('HANDOVER_OPTION', {
      what: `handover() of @handover/express was given ${inspect(app, { depth: -1 })}, which is no Express app`,
      serving: 'Nothing was changed', todo: 'Give it express(). A server goes to handover() of @handover/core'
    })
  }
  adoptRequestListener(app, options)
  const { listen } = app as unknown as { listen: (this: unknown, ...args: unknown[]) => Server }
  const express5 = app.lazyrouter === undefined
  app.listen = function (this: T, ...args: unknown[]): Server {
    const callback = args.at(-1)
    // Express 5 also calls it with an error. A callback that takes no error would say "listening" on EADDRINUSE: so it is not called, and
    // the error goes to the program's own 'error' listener, or is thrown.
    if (express5 && typeof callback === 'function' && callback.length === 0) {
      args[args.length - 1] = function (this: Server, error?: Error): void {
        if (!error) callback.call(this)
        else if (this.listenerCount('error') === 0) throw error
      }
    }
    return listen.apply(this, args)
  }
  return Object.assign(app, { handover: core })
}

export { handover as default, handover }

// require() answers with the function itself, as in all adapters.
module.exports = Object.assign(handover, { default: handover, handover })
