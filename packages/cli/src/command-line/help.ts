/** What `--help` prints: at most 25 lines of 80 columns each, made from the table of commands. Pure. */

import { commands, optionsOf, synopsis, type CommandName, type CommandText, type OptionText } from './commands.js'

const names = Object.keys(commands) as CommandName[]
const firstWords: Readonly<Partial<Record<CommandName, string>>> = { run: '[options] script', completion: 'shell' }

export const places = `A name or pid is needed only where several apps run. Processes are found in
HANDOVER_DIR, else in $XDG_RUNTIME_DIR/handover, /run/handover for root, and
/tmp/handover-<uid>.`

export const overview = `handover: reload a Node server without losing a request

${names.map((name) => `  ${`handover ${name} ${firstWords[name] ?? '[name|pid]'}`.padEnd(33)}${commands[name].short}`).join('\n')}

${places}

  handover <command> --help        the options of a command
  handover --version

Exit status: 0 done, 1 failed, 2 wrong arguments.
`

function columns(options: readonly [string, OptionText][]): string {
  const width = Math.max(...options.map(([name, option]) => synopsis(name, option).length))
  return options.map(([name, option]) => `  ${synopsis(name, option).padEnd(width)}  ${option.text}\n`).join('')
}

function help(name: CommandName): string {
  const { usage, about, notes }: CommandText = commands[name]
  const all = optionsOf(name)
  const [plain, kept] = [all.filter(([, { kept }]) => !kept), all.filter(([, { kept }]) => kept)]
  const parts = [
    `handover ${name} ${usage}\n`, `${about}\n`, ...(plain.length > 0 ? [columns(plain)] : []),
    ...(kept.length > 0 ? [`Under a keeper (handover run):\n${columns(kept)}`] : []), ...(notes === '' ? [] : [`${notes}\n`])
  ]
  return parts.join('\n')
}

export const helpOf = Object.fromEntries(names.map((name) => [name, help(name)])) as Readonly<Record<CommandName, string>>
