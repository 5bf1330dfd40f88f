/** test/programs/hardy.mjs: a server that does something wrong, or that meets surroundings that do. */

import { Program, type ProgramOptions, programPath } from './program.js'

export async function startHardy(options: ProgramOptions = {}): Promise<{
  program: Program; port: number; [Symbol.asyncDispose]: () => Promise<void>
}> {
  const program = Program.start(programPath('hardy.mjs'), options)
  const { port } = await program.event('listening') as unknown as { port: number }
  return { program, port, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() }
}
