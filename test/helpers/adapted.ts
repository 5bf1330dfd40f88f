/**
 * Starts test/programs/adapter.mjs: a Fastify or Express program in the shape that a test asks for.
 */

import { Program, programPath } from './program.js'

export function startAdapter(app: 'fastify' | 'express5' | 'express4', shape: object, options: object = {}, execArgv: readonly string[] = []): Program {
  return Program.start(programPath('adapter.mjs'), { execArgv, env: { APP: app, SHAPE: JSON.stringify(shape), OPTIONS: JSON.stringify(options) } })
}

/** The `listening` event of a generation. */
export async function listening(program: Program, generation = 1): Promise<{
  pid: number; address: unknown; addresses: { address: string; family: string; port: number }[]
}> {
  return await program.event('listening', (event) => event.generation === generation) as never
}
