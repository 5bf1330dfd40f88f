/** Several programs as one: the events of all of them in one list, and all their processes. What Scene and Generations share. */

import type { Program, ProgramEvent } from './program.js'

export class ProgramGroup {
  readonly programs: Program[] = []

  get events(): ProgramEvent[] {
    return this.programs.flatMap((program) => program.events)
  }

  get stderr(): string {
    return this.programs.map((program) => program.stderr).join('')
  }

  get alive(): number[] {
    return this.programs.flatMap((program) => program.alive)
  }

  /** Looks anew whenever one of the programs says something. */
  async until<T>(look: () => T | undefined | false): Promise<T> {
    return await Promise.race(this.programs.map((program) => program.until(look)))
  }
}
