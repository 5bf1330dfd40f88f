/**
 * Saves the sections that ask for it every so often, so that the next process knows something where this one crashes. Runs while the
 * process serves; one save of a section at a time.
 */

import { closeLater } from '../../platform/memory-file.js'
import type { Sections } from './section-registry.js'
import type { SectionSaver } from './section-saver.js'
import { cannotStore, storeCheckpoint } from './systemd-store.js'

export interface CheckpointKeeper {
  /** A section for the next process of this slot, if this one crashes. False where the keeper does not get it: it keeps the one before. */
  checkpoint(name: string, fd: number, bytes: number): boolean
}

export class CheckpointTimer {
  readonly #sections: Sections
  readonly #saving: SectionSaver
  readonly #keeper: () => CheckpointKeeper | undefined
  readonly #warn: (line: string) => void
  readonly #timers = new Map<string, NodeJS.Timeout>()
  #stopped = new AbortController()
  readonly #failing = new Set<string>()

  /** Without a keeper systemd stores the checkpoints. */
  constructor(sections: Sections, saving: SectionSaver, keeper: () => CheckpointKeeper | undefined, warn: (line: string) => void) {
    this.#sections = sections
    this.#saving = saving
    this.#keeper = keeper
    this.#warn = warn
  }

  start(): void {
    if (this.#stopped.signal.aborted) this.#stopped = new AbortController()
    for (const { name, checkpoint } of this.#sections.saved) {
      if (checkpoint !== undefined && !this.#timers.has(name)) this.#next(name, checkpoint)
    }
  }

  stop(): void {
    this.#stopped.abort(new Error('this process does not serve any more'))
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }

  #next(name: string, everyMs: number): void {
    const { signal } = this.#stopped
    const timer = setTimeout(() => {
      void this.#save(name, signal).finally(() => {
        if (!signal.aborted) this.#next(name, everyMs)
      })
    }, everyMs)
    timer.unref()
    this.#timers.set(name, timer)
  }

  async #save(name: string, signal: AbortSignal): Promise<void> {
    try {
      const reason = this.#keeper() ? undefined : cannotStore(process.env, name)
      if (reason !== undefined) throw new Error(`there is no keeper (handover run), and ${reason}`)
      const file = await this.#saving.save(name, 'checkpoint', signal)
      try {
        if (!signal.aborted && !(this.#keeper()?.checkpoint(name, file.fd, file.bytes) ?? storeCheckpoint(name, file.fd))) {
          throw new Error('it was not taken')
        }
      } finally {
        void closeLater(file.fd)
      }
      this.#failing.delete(name)
    } catch (error) {
      if (signal.aborted) return
      // Once, until it works again.
      if (!this.#failing.has(name)) this.#warn(`no checkpoint of section "${name}": ${(error as Error).message}`)
      this.#failing.add(name)
    }
  }
}
