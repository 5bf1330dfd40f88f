/** The man page handover(1), made from the table of commands. `npm run build` writes it to packages/cli/man. Pure. */

import { commands, optionsOf, type CommandName, type CommandText, type OptionText } from './commands.js'
import { places } from './help.js'

const names = Object.keys(commands) as CommandName[]

/** A line of text: no escape, and no request of roff at its beginning. */
const text = (line: string): string => line.replace(/\\/g, '\\e').replace(/-/g, '\\-').replace(/^(?=[.'])/, '\\&')
/** Lines that are indented are examples. */
function paragraphs(all: string): string[] {
  const lines: string[] = []
  let isExample = false
  for (const line of all.split('\n')) {
    const indented = line.startsWith('  ')
    if (indented !== isExample) lines.push(indented ? '.PP\n.nf' : '.fi\n.PP')
    isExample = indented
    lines.push(text(line.trimStart()))
  }
  return isExample ? [...lines, '.fi'] : lines
}

const option = ([name, { value, text: about }]: [string, OptionText]): string =>
  `.TP\n\\fB\\-\\-${text(name)}\\fR${value === undefined ? '' : ` \\fI${text(value)}\\fR`}\n${text(about)}`

function section(name: CommandName): string[] {
  const { usage, about, notes }: CommandText = commands[name]
  const all = optionsOf(name)
  const [plain, kept] = [all.filter(([, { kept }]) => !kept), all.filter(([, { kept }]) => kept)]
  return [
    `.SS "handover ${name} ${text(usage)}"`, ...paragraphs(about), ...plain.map(option),
    ...(kept.length > 0 ? ['.PP', 'Under a keeper (handover run):', ...kept.map(option)] : []), ...(notes === '' ? [] : ['.PP', ...paragraphs(notes)])
  ]
}

/** Of the last change of this text that a reader would look for. */
const date = '2026-11-29'

/** `version`: of the package. */
export function manPage(version: string): string {
  return `${[
    `.TH HANDOVER 1 "${date}" "handover ${version}" "User Commands"`,
    '.SH NAME', 'handover \\- reload a Node server without losing a request',
    '.SH SYNOPSIS', ...names.map((name) => `.B handover ${name}\n${text(commands[name].usage)}\n.br`), '.B handover\n\\-\\-version',
    '.SH DESCRIPTION', ...paragraphs(places),
    '.SH COMMANDS', ...names.flatMap(section),
    '.SH EXIT STATUS', '0 done, 1 failed, 2 wrong arguments.'
  ].join('\n')}\n`
}
