/**
 * The sections that the program has declared by share(), each under its name. Checks them.
 *
 * It neither saves nor restores: see section-saver.ts and section-restorer.ts.
 */

import { inspect } from 'node:util'
import { optionError } from '../../errors.js'
import type { Section } from '../sharing-api.js'
import { isTypo } from '../../typo.js'

const defaultTimeoutMs = 10_000
const defaultMaxBytes = 1_073_741_824
/** Their names, and what becomes of each, go as one message. */
const mostSections = 1_000

/** A section with its defaults. */
export interface DeclaredSection extends Section {
  readonly name: string
  readonly timeoutMs: number
  readonly mostBytes: number
}

const numbers = ['schema', 'timeout', 'maxBytes', 'checkpoint'] as const
const flags = ['optional', 'final'] as const
const functions = ['save', 'restore', 'merge'] as const
const options: readonly string[] = [...numbers, ...flags, 'accepts'] satisfies (keyof Section)[]
const known = new Set([...options, ...functions])

export class Sections {
  readonly #declared = new Map<string, DeclaredSection>()
  readonly #added: (section: DeclaredSection) => void
  readonly #mayRepeat: boolean

  /** `mayRepeat`: the last section of a name counts, and the others are no error. */
  constructor(added: (section: DeclaredSection) => void, mayRepeat = false) {
    this.#added = added
    this.#mayRepeat = mayRepeat
  }

  /** Throws HANDOVER_OPTION. */
  share(name: string, section: Section): void {
    if (typeof name !== 'string' || name === '' || name.length > 128 || name.startsWith('@') || /\p{Surrogate}/u.test(name)) throw optionError(`share() was given the name ${inspect(name)}`, 'Give 1 to 128 characters, not beginning with "@"')
    if (typeof section !== 'object' || (section as Section | null) === null) throw optionError(`share("${name}") was given ${inspect(section)}`, 'Give an object with save and restore')
    for (const [key, value] of Object.entries(section)) {
      // A section may have fields of its own, for its functions.
      if (value === undefined || known.has(key)) continue
      const meant = options.find((option) => isTypo(key, option))
      if (meant !== undefined) throw optionError(`section "${name}" has ${key}, which is no option of a section`, `Give ${meant}, or call it something else`)
    }
    if (this.#declared.has(name) && !this.#mayRepeat) throw optionError(`share("${name}") was called twice`, 'Give each section a name of its own')
    if (this.#declared.size >= mostSections) throw optionError(`share("${name}") is section ${mostSections + 1}, and there may be ${mostSections}`, 'Put what belongs together into one section, as a Map or a stream')
    for (const key of functions) if (section[key] !== undefined && typeof section[key] !== 'function') throw optionError(`${key} of section "${name}" is ${inspect(section[key])}`, 'Give a function')
    if (!section.save && !section.restore) throw optionError(`section "${name}" has neither save nor restore`, 'Give at least one of them')
    for (const key of numbers) {
      const value: unknown = section[key]
      if (value !== undefined && !(Number.isSafeInteger(value) && (value as number) >= (key === 'schema' ? 0 : 1))) throw optionError(`${key} of section "${name}" is ${inspect(value)}`, 'Give a whole number')
    }
    for (const key of ['timeout', 'checkpoint'] as const) if ((section[key] ?? 0) > 2_147_483_647) throw optionError(`${key} of section "${name}" is ${section[key]}`, 'Give at most 2147483647 milliseconds')
    for (const key of flags) if (section[key] !== undefined && typeof section[key] !== 'boolean') throw optionError(`${key} of section "${name}" is ${inspect(section[key])}`, 'Give true or false')
    const accepts: unknown = section.accepts
    if (accepts !== undefined && !(Array.isArray(accepts) && accepts.every((schema) => Number.isSafeInteger(schema)))) throw optionError(`accepts of section "${name}" is ${inspect(accepts)}`, 'Give a list of schema numbers')
    for (const key of ['final', 'checkpoint'] as const) if (section[key] && !section.save) throw optionError(`section "${name}" has ${key} and no save`, 'Give it a save')
    const { optional = false, final = false, timeout = defaultTimeoutMs, maxBytes = defaultMaxBytes, schema, checkpoint } = section
    // Its functions are called as methods of what the program gave, which may be an instance of a class.
    const declared: DeclaredSection = {
      name, optional, final, timeoutMs: timeout, mostBytes: maxBytes,
      ...(section.save && { save: (info) => section.save?.(info) }),
      ...(section.restore && { restore: (value, info) => section.restore?.(value, info) }),
      ...(section.merge && { merge: (value, info) => section.merge?.(value, info) }),
      ...(schema !== undefined && { schema }),
      ...(section.accepts && { accepts: section.accepts }),
      ...(checkpoint !== undefined && { checkpoint })
    }
    this.#declared.set(name, declared)
    this.#added(declared)
  }

  get(name: string): DeclaredSection | undefined {
    return this.#declared.get(name)
  }

  /** Those that can be saved. */
  get saved(): DeclaredSection[] {
    return [...this.#declared.values()].filter(({ save }) => save !== undefined)
  }
}
