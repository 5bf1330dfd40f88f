/**
 * What adapters use beside the public functions: servers that are known by their request listener, the log, and connections that an adapter
 * moves itself. It acts on the generation of the process, as index.ts does. Packages reach it by `@handover/core/internal`.
 */

import type net from 'node:net'
import { generationOfProcess } from './generation/this-process.js'
import type { HandoverOptions, LogLevel } from './options.js'

const generation = generationOfProcess()

/**
 * Makes every HTTP server of the process reloadable that listens from now on: `listener` is the function by which an app answers, and
 * others may stand before it. With `mayFail` a successor can serve although a server with it does not listen. Throws HANDOVER_OPTION.
 */
export function adoptRequestListener(
  listener: (...args: never[]) => unknown, options: HandoverOptions = {}, { mayFail = false } = {}
): void {
  generation.configure(options)
  generation.adoptRequestListener(listener, mayFail, options.canMove)
}

/** A line in the log of this process. */
export const log = (level: LogLevel, line: string): void => { generation.log(level, line) }

/** Whether connections under TLS can move from and to this process, and the program wants that. */
export const movesTls = (): boolean => generation.movesTls

/** Why a connection is not moved, for the report. */
export const noteStay = (socket: net.Socket, reason: string): void => { generation.noteStay(socket, reason) }

/** Of what the option onClose was given, only `left` is still to be done at the end. */
export const replaceCloseHook = (hook: () => unknown, left: (() => unknown) | undefined): void => {
  generation.replaceCloseHook(hook, left)
}

/** What the option onClose was given closes an app that says goodbye on its WebSockets then: the drain leaves them to it. */
export const closesApp = (hook: () => unknown): void => { generation.closesApp(hook) }

/** The function that onMoved() got for this kind takes no more connections, and the kind is free again. */
export const forgetMoved = (kind: string): void => { generation.forgetMoved(kind) }
