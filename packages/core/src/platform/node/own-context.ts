/**
 * What Node does around each of its own callbacks: a function that the program's listeners are a part of gets an asynchronous context of
 * its own. What they store there (AsyncLocalStorage) is not seen by the listeners for the next connection of the same loop.
 */

import { AsyncResource } from 'node:async_hooks'

export const inOwnContext = <Result>(run: () => Result): Result => new AsyncResource('HANDOVER').runInAsyncScope(run)
