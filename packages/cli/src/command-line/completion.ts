/**
 * The completion of bash, zsh and fish, made from the table of commands. Names of apps are asked of `handover status` when they are
 * wanted. Pure.
 */

import type { Shell } from './arguments.js'
import { commands, optionsOf, type CommandName, type CommandText, type OptionText } from './commands.js'

const names = Object.keys(commands) as CommandName[]
const wordsOf = (name: CommandName): readonly string[] => (commands[name] as CommandText).words ?? []
const takesApp = names.filter((name) => commands[name].target)

/** The names of all apps that run, one a line; nothing where none does. */
const apps = "handover status --json 2>/dev/null | sed -n 's/^      \"name\": \"\\([A-Za-z0-9._-]*\\)\",*$/\\1/p'"

/** The values of an option, where there is a choice. */
const choiceOf = ({ value }: OptionText): readonly string[] => (value?.includes('|') ? value.split('|').filter((each) => /^[a-z]/.test(each)) : [])

const optionWords = (name: CommandName): string => [...optionsOf(name).map(([option]) => `--${option}`), '--help'].join(' ')

export function completionOf(shell: Shell): string {
  return `# handover: completion of ${shell}, made by: handover completion ${shell}\n${{ bash, zsh, fish }[shell]()}`
}

// ---- bash ----

function bash(): string {
  const cases = names.flatMap((name) => optionsOf(name).flatMap(([option, text]) => {
    if (text.value === undefined) return []
    const choice = choiceOf(text)
    const values = text.value === 'FILE' ? '$(compgen -f -- "$word")' : choice.length > 0 ? `$(compgen -W '${choice.join(' ')}' -- "$word")` : ''
    return [`    ${name}:--${option}) COMPREPLY=(${values}); return ;;`]
  }))
  const options = names.map((name) => `    ${name}) options='${optionWords(name)}'; words='${wordsOf(name).join(' ')}' ;;`)
  return `_handover() {
  local word=\${COMP_WORDS[COMP_CWORD]} command=\${COMP_WORDS[1]} options='' words=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${names.join(' ')} help --help --version' -- "$word"))
    return
  fi
  case "$command:\${COMP_WORDS[COMP_CWORD-1]}" in
${cases.join('\n')}
  esac
  case "$command" in
${options.join('\n')}
    help) words='${names.join(' ')}' ;;
  esac
  case "$command:$word" in
    *:-*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    ${takesApp.map((name) => `${name}:*`).join('|')}) COMPREPLY=($(compgen -W "$(${apps})" -- "$word")) ;;
    run:*) COMPREPLY=($(compgen -f -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
  esac
}
complete -o filenames -F _handover handover
`
}

// ---- zsh ----

const zshText = (text: string): string => text.replace(/([[\]:\\])/g, '\\$1').replace(/'/g, "'\\''")

function zshOption(name: string, option: OptionText): string {
  const choice = choiceOf(option)
  const value = option.value === undefined ? '' : `:${zshText(option.value)}:${option.value === 'FILE' ? '_files' : choice.length > 0 ? `(${choice.join(' ')})` : ''}`
  return `'--${name}[${zshText(option.text)}]${value}'`
}

function zsh(): string {
  const cases = names.map((name) => {
    const words = wordsOf(name)
    const rest = name === 'run' ? "'*:file:_files'" : words.length > 0 ? `'1:word:(${words.join(' ')})'` : "'1:app:_handover_apps'"
    return `    ${name}) _arguments ${[...optionsOf(name).map((each) => zshOption(...each)), "'(- *)--help[print the help]'", rest].join(' ')} ;;`
  })
  return `_handover_apps() {
  local -a apps
  apps=(\${(f)"$(${apps})"})
  (( \${#apps} )) && compadd -a apps
}
_handover() {
  local -a commands
  commands=(${names.map((name) => `'${name}:${zshText(commands[name].short)}'`).join(' ')})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
    help) _arguments '1:command:(${names.join(' ')})' ;;
  esac
}
compdef _handover handover
`
}

// ---- fish ----

const fishText = (text: string): string => `'${text.replace(/([\\'])/g, '\\$1')}'`

function fish(): string {
  const lines = ["complete -c handover -n '__fish_use_subcommand' -f"]
  for (const name of names) {
    const seen = `-n '__fish_seen_subcommand_from ${name}'`
    lines.push(`complete -c handover -n '__fish_use_subcommand' -f -a ${name} -d ${fishText(commands[name].short)}`)
    for (const [option, text] of optionsOf(name)) {
      const choice = choiceOf(text)
      const value = text.value === undefined ? '' : ` ${text.value === 'FILE' ? '-rF' : '-x'}${choice.length > 0 ? ` -a ${fishText(choice.join(' '))}` : ''}`
      lines.push(`complete -c handover ${seen} -l ${option}${value} -d ${fishText(text.text)}`)
    }
    if (wordsOf(name).length > 0) lines.push(`complete -c handover ${seen} -f -a ${fishText(wordsOf(name).join(' '))}`)
    if (commands[name].target) lines.push(`complete -c handover ${seen} -f -a ${fishText(`(${apps})`)}`)
  }
  return `${lines.join('\n')}\n`
}

