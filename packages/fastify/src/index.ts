/**
 * @handover/fastify: the plugin that makes `app.listen` inherit or bind.
 *
 * It adopts the app's server, the hidden second server that Fastify makes for `localhost`, and other HTTP servers of the program. It never
 * closes the app before the drain is over, because fastify.close() answers 503 from its first moment.
 */

import { handover as core, type Handover, type HandoverOptions } from '@handover/core'
import { adoptRequestListener, closesApp, replaceCloseHook } from '@handover/core/internal'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'

declare module 'fastify' {
  interface FastifyInstance {
    /** This process: its generation and state, `reload()`, `ready()`, `stop()`, `events`. */
    handover: Handover
  }
}

const register: FastifyPluginAsync<HandoverOptions> = async (app: FastifyInstance, options) => {
  const { prefix: _prefix, logLevel: _level, logSerializers: _serializers, ...own } = options as HandoverOptions & Record<string, unknown>
  if (app.hasDecorator('handover')) {
    core(app.server, own)
    return
  }
  // Without a logger app.log is silent, and nothing about a handover may be.
  const logs = (app.log as { level?: string }).level !== undefined
  const onClose = async (): Promise<void> => {
    try {
      await app.close()
    } finally {
      await options.onClose?.()
    }
  }
  core(app.server, { ...(logs && { log: (level, line) => { app.log[level](`handover: ${line}`) } }), ...own, onClose })
  // In hooks preClose, as @fastify/websocket has one.
  closesApp(onClose)
  // An app that the program has closed is not kept until the end of the process: tests make and close many.
  app.addHook('onClose', async () => { replaceCloseHook(onClose, options.onClose) })
  const moving = own.canMove ? { canMove: own.canMove } : {}
  for (const listener of app.server.listeners('request') as ((...args: never[]) => unknown)[]) {
    adoptRequestListener(listener, moving, { mayFail: true })
  }
  app.decorate('handover', core)
}

/**
 * The plugin, for `app.register(handover, options)`. Options belong to the process; times are in milliseconds. Adds `app.handover`. Throws
 * HANDOVER_OPTION for an unknown option.
 */
const plugin = fp(register, { fastify: '5.x', name: '@handover/fastify' })
export { plugin as default, plugin as handover }
// What a program infers from `app.handover` has a name here too: where packages are strictly apart (pnpm), it finds none in core.
export type * from '@handover/core'

// require() answers with the plugin itself, as Fastify's own plugins do.
module.exports = Object.assign(plugin, { default: plugin, handover: plugin })
