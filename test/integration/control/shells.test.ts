/** Completion in the shells themselves, and the man page: what is not installed here is skipped, and says so. */

import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { commands, completionOf, manPage, optionsOf, type CommandName } from '../../helpers/internals.js'

const folder = mkdtempSync(path.join(tmpdir(), 'handover-shells-'))
const env = { ...process.env, PATH: `${folder}:${process.env['PATH']}`, HOME: folder, TERM: 'dumb' }
const fileOf = (shell: string): string => path.join(folder, `completion.${shell}`)
const isHere = (program: string): boolean => spawnSync(program, ['--version']).error === undefined
const ran = (program: string, ...words: string[]): string => execFileSync(program, words, { env, encoding: 'utf8', timeout: 30_000 })

/** Types the line and two tabs into an interactive zsh, and prints what the terminal shows. */
const zshTyping = `zmodload zsh/zpty
zpty z TERM=dumb zsh -f -i
zpty -w z "PROMPT=; autoload -Uz compinit; compinit -u -D; source $1; setopt no_list_beep; echo RE''ADY"
zpty -r -m z _ '*READY*'
zpty -w -n z "handover $2"
# A tab that comes before the line editor is ready does nothing: another follows.
for each in {1..60}; do
  zpty -w -n z $'\\t'
  sleep 0.2
  while zpty -r -t z line; do seen+=$line; done
  [[ $seen == *$3* ]] && break
done
print -r -- "$seen"
zpty -d z
`

beforeAll(() => {
  for (const shell of commands.completion.words) writeFileSync(fileOf(shell), completionOf(shell))
  // Stands for the command: an app runs. As commands/status.ts prints it.
  const status = JSON.stringify({ apps: [{ name: 'shop', processes: [{ name: 'inner' }] }] }, undefined, 2)
  writeFileSync(path.join(folder, 'handover'), `#!/bin/sh\ncat <<'END'\n${status}\nEND\n`)
  chmodSync(path.join(folder, 'handover'), 0o755)
  writeFileSync(path.join(folder, 'typing.zsh'), zshTyping)
})

afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

const completed = {
  bash: (line: string) => ran('bash', '--norc', '-c', `source ${fileOf('bash')}
    COMP_WORDS=(handover ${line.endsWith(' ') ? `${line}''` : line}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _handover; printf '%s\\n' "\${COMPREPLY[@]}"`),
  fish: (line: string) => ran('fish', '-c', `source ${fileOf('fish')}; complete -C 'handover ${line}'`),
  zsh: (line: string, found: string) => ran('zsh', '-f', path.join(folder, 'typing.zsh'), fileOf('zsh'), line, found)
}

describe.each(commands.completion.words)('completion of %s', (shell) => {
  it.skipIf(!isHere(shell))(`knows commands, options, values and apps${isHere(shell) ? '' : ` (skipped: no ${shell} here)`}`, () => {
    for (const [line, found] of [['rel', 'reload'], ['reload --b', '--bake'], ['run --spare o', 'off'], ['completion f', 'fish'], ['reload sh', 'shop'], ['status --w', '--watch'], [`drill --report ${folder}/typ`, 'typing.zsh']] as const) {
      expect(completed[shell](line, found), line).toContain(found)
    }
    expect(completed[shell]('stop ', 'shop')).not.toContain('inner')
  })
})

it.skipIf(!isHere('bash'))('every command and every option is completed by bash', () => {
  for (const name of Object.keys(commands) as CommandName[]) {
    expect(completed.bash(name.slice(0, -1)).split('\n')).toContain(name)
    const words = completed.bash(`${name} --`).split('\n')
    expect(words).toEqual(expect.arrayContaining(optionsOf(name).map(([option]) => `--${option}`)))
  }
})

describe('the man page', () => {
  const page = manPage('1.2.3')

  it('has every command and every option with its text, and nothing that roff would take for a request', () => {
    const plain = page.replace(/\\f[BIR]/g, '').replace(/\\-/g, '-')
    for (const name of Object.keys(commands) as CommandName[]) {
      expect(plain).toContain(`.SS "handover ${name} ${commands[name].usage}"`)
      for (const [option, { value, text }] of optionsOf(name)) expect(plain).toContain(`.TP\n--${option}${value === undefined ? '' : ` ${value}`}\n${text}\n`)
    }
    for (const line of page.split('\n')) expect(line).toMatch(/^(\.(TH|SH|SS|PP|TP|B|br|nf|fi)\b|\\f|\\-|[^.'\\]|$)/)
  })

  const linted = isHere('mandoc') || !spawnSync('mandoc', ['-T', 'lint'], { input: '' }).error
  it.skipIf(!linted)(`has nothing that mandoc warns of${linted ? '' : ' (skipped: no mandoc here)'}`, () => {
    expect(spawnSync('mandoc', ['-T', 'lint', '-W', 'warning'], { input: page, encoding: 'utf8' })).toMatchObject({ stdout: '', status: 0 })
  })

  const man = isHere('man')
  it.skipIf(!man)(`is shown by man${man ? '' : ' (skipped: no man here)'}`, () => {
    const file = path.join(folder, 'handover.1')
    writeFileSync(file, page)
    const { stdout, stderr } = spawnSync('man', ['-l', file], { env: { ...env, MANWIDTH: '80', MAN_KEEP_FORMATTING: '' }, encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(stdout).toMatch(/--bake TIME\n +how long the new version is watched \(3s\)/)
  })
})
