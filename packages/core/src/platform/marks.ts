/** The variables that tell a process what it is. Each is removed before any code of the program runs. Pure. */

/** Of a successor: the descriptors of its end of the channel. */
export const successorMark = 'HANDOVER_SUCCESSOR'

/** Of a worker: the descriptors of its line to the keeper, and its place there. */
export const keeperMark = 'HANDOVER_KEEPER'

/** Of a worker that waits for its turn (spare.ts). */
export const spareMark = 'HANDOVER_SPARE'

/** The place of a worker under its keeper, a pid. A name may hold commas. */
export interface WorkerPlace {
  readonly slot: number
  readonly keeper: number
  readonly name: string
}

/** What follows the two descriptors in the mark of a worker. */
export const workerWords = ({ slot, keeper, name }: WorkerPlace): string[] => [String(slot), String(keeper), name]

/** `<messages>,<descriptors>,<slot>,<keeper>,<name>`. Undefined where it is anything else. */
export function parseKeeperMark(text: string): WorkerPlace & { readonly messages: number; readonly descriptors: number } | undefined {
  const [, messages, descriptors, slot, keeper, name] = /^(\d+),(\d+),(\d+),(\d+),(.*)$/s.exec(text) ?? []
  if (name === undefined) return undefined
  return { messages: Number(messages), descriptors: Number(descriptors), slot: Number(slot), keeper: Number(keeper), name }
}
