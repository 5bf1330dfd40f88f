/**
 * Every command with its options: the one table from which the help, the parser, the completion of shells and the man page are made. Pure.
 */

/** What stands after an option. Each has a reader in arguments.ts. */
export type Placeholder = 'TIME' | 'N' | 'N|max' | 'NAME' | '/PATH' | 'URL' | 'on|off' | 'SIZE' | 'PORT' | 'text|json' | 'FILE'

export interface OptionText {
  /** Absent for a flag. */
  readonly value?: Placeholder
  readonly text: string
  /** Means something under a keeper only. */
  readonly kept?: true
}

export interface CommandText {
  /** After `handover` and the command. */
  readonly usage: string
  /** Half a line, for the overview. */
  readonly short: string
  readonly about: string
  /** After the options. */
  readonly notes: string
  /** May be followed by the name or the pid of an app. */
  readonly target: boolean
  /** Where there is something to choose from, the words that may follow. */
  readonly words?: readonly string[]
  readonly options: Readonly<Record<string, OptionText>>
}

const times = 'TIME: 500ms, 30s, 2m.'

export const commands = {
  run: {
    usage: '[options] [node options] script [arguments]',
    short: 'start a server under a keeper',
    about: `Starts a Node server under a keeper, which holds its listeners: a crash is a
pause, and a reload loses nothing. HUP reloads, TERM and INT drain and stop.`,
    notes: `Options of Node stand before the script, as with node itself:
  handover run --workers 4 --import tsx server.ts --port 3000
Everything after the script belongs to the script. ${times}`,
    target: false,
    options: {
      workers: { value: 'N|max', text: 'how many processes share the listeners (1)' },
      name: { value: 'NAME', text: 'by which the other commands find it' },
      'hang-timeout': { value: 'TIME', text: 'replace a worker that is blocked for longer (30s; 0: no)' },
      shared: { text: 'one queue for all workers, instead of one for each' },
      spare: { value: 'on|off', text: 'boot the next worker while nothing else is to do (on)' },
      'max-memory': { value: 'SIZE', text: 'reload a worker that has more memory: 512M, 1G' },
      metrics: { value: 'PORT', text: "the keeper's own metrics for Prometheus; or HOST:PORT" },
      log: { value: 'text|json', text: 'how the log is written (text)' }
    }
  },
  reload: {
    usage: '[name|pid] [options]',
    short: 'start the new version and hand over to it',
    about: `Starts the new version, hands over to it when it is ready, and watches it.
Exit status 0 only when it serves. Else nothing has changed: the reason, the
last lines that the new version wrote, and who serves now are printed.`,
    notes: times,
    target: true,
    options: {
      wait: { text: 'until the old version has ended, too' },
      bake: { value: 'TIME', text: 'how long the new version is watched (3s)' },
      timeout: { value: 'TIME', text: 'how long this command waits for the answer (120s)' },
      'without-state': { text: 'the new version begins without the shared state' },
      'allow-drop': { text: 'the new version may listen on less than the old one' },
      timing: { text: 'where the time went, phase by phase' },
      json: { text: 'each step as a line of JSON, and the outcome as the last' },
      canary: { value: 'N', text: 'so many workers go first and are watched, then the rest', kept: true },
      probe: { value: '/PATH', text: 'must answer 2xx before the new version accepts anything', kept: true },
      parallel: { text: 'all workers at once, instead of as many as there are cores', kept: true },
      workers: { value: 'N|max', text: 'another number of workers from now on', kept: true },
      keeper: { text: 'hand over the keeper itself, not the app', kept: true }
    }
  },
  status: {
    usage: '[name|pid] [options]',
    short: 'every generation that lives, and what it does',
    about: `Every generation that lives: what it is, what it has open, and what a drain
still waits for. Without a name: all apps of this user.`,
    notes: `BUSY: requests that are being answered. DELAY: the longest that the event loop
was late since the last status.`,
    target: true,
    options: {
      watch: { text: 'again every second, until ctrl-C' },
      web: { value: 'PORT', text: 'as a page that renews itself, until ctrl-C; or HOST:PORT (0: any)' },
      json: { text: '{"ok": true, "apps": [...]}; with --watch a line each second' }
    }
  },
  stop: {
    usage: '[name|pid] [options]',
    short: 'drain and end',
    about: `Drains and ends every process of the app: requests that run are answered, then
the processes end, within drainTimeout. Waits for that.`,
    notes: '',
    target: true,
    options: { json: { text: 'which processes were stopped' } }
  },
  drill: {
    usage: '[name|pid] [options]',
    short: 'reload under load, and print what was lost',
    about: `Reloads the app under strict load, and prints what was lost: 0, or exactly what.
Exit status 0 only where nothing was lost.`,
    notes: times,
    target: true,
    options: {
      url: { value: 'URL', text: 'where it serves, if not where it listens' },
      path: { value: '/PATH', text: 'what is asked for (the path of the URL)' },
      connections: { value: 'N', text: 'how many clients (50)' },
      duration: { value: 'TIME', text: 'how long the load lasts before, and again after (2s)' },
      report: { value: 'FILE', text: 'the drill as a page (.html) or a picture (.svg)' },
      json: { text: 'the result as JSON' }
    }
  },
  report: {
    usage: '[name|pid] [options]',
    short: 'the last reloads as a page of HTML',
    about: `Prints one page of HTML that loads nothing: the last reloads with their phases,
who accepted when, what became of connections, and the generations that live.
  handover report >report.html`,
    notes: '',
    target: true,
    options: {
      open: { text: 'in the browser of this desktop, instead' },
      svg: { text: 'the picture alone, for a page of your own' }
    }
  },
  completion: {
    usage: 'bash|zsh|fish',
    short: 'print the completion of a shell',
    about: `Prints a script that completes commands and options in a shell:
  bash  eval "$(handover completion bash)"         in ~/.bashrc
  zsh   eval "$(handover completion zsh)"          in ~/.zshrc, after compinit
  fish  handover completion fish | source          in config.fish`,
    notes: '',
    target: false,
    words: ['bash', 'zsh', 'fish'],
    options: {}
  }
} as const satisfies Readonly<Record<string, CommandText>>

export type CommandName = keyof typeof commands
export type OptionsOf<Name extends CommandName> = (typeof commands)[Name]['options']

export const isCommand = (word: string): word is CommandName => Object.hasOwn(commands, word)

/** In the order of the help. */
export const optionsOf = (name: CommandName): [name: string, option: OptionText][] => Object.entries(commands[name].options)

/** `--bake TIME`. */
export const synopsis = (name: string, { value }: OptionText): string => `--${name}${value === undefined ? '' : ` ${value}`}`
