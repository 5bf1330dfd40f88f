/** The command line: what each word means, and what is said of one that means nothing. */

import { availableParallelism } from 'node:os'
import { describe, expect, it } from 'vitest'
import { commands, Failure, helpOf, needsKeeper, optionsOf, overview, parseCommand, type CommandName } from '../../helpers/internals.js'

const words = (line: string): string[] => line.split(' ').filter(Boolean)
const parsed = (line: string) => parseCommand(words(line))
const failure = (line: string): Failure => {
  try {
    parsed(line)
  } catch (error) {
    return error as Failure
  }
  throw new Error(`${line} was understood`)
}

describe('handover run', () => {
  const run = (line: string) => {
    const command = parsed(`run ${line}`)
    if (command.is !== 'run') throw new Error(command.is)
    return command.options
  }

  it('takes options of Node before the script, and gives everything after it to the script', () => {
    expect(run('app.js')).toEqual({ workers: 1, shared: false, spare: true, nodeOptions: [], script: 'app.js', args: [] })
    expect(run('--import tsx app.ts --workers 3')).toEqual({ workers: 1, shared: false, spare: true, nodeOptions: ['--import', 'tsx'], script: 'app.ts', args: ['--workers', '3'], misplaced: '--workers' })
    expect(run('-r ./a.js --max-old-space-size=512 --workers 4 -C dev --enable-source-maps app.js -r x'))
      .toEqual({ workers: 4, shared: false, spare: true, nodeOptions: ['-r', './a.js', '--max-old-space-size=512', '-C', 'dev', '--enable-source-maps'], script: 'app.js', args: ['-r', 'x'] })
    expect(run('--name shop --hang-timeout=10s --shared --spare off --workers=max -- app.js --name x')).toEqual({ workers: availableParallelism(), name: 'shop', hangTimeoutMs: 10_000, shared: true, spare: false, nodeOptions: [], script: 'app.js', args: ['--name', 'x'] })
  })

  it('reads sizes, addresses and the form of the log', () => {
    expect(run('--max-memory 1.5G --metrics 9100 --log json app.js')).toMatchObject({ maxMemoryBytes: 1_610_612_736, metrics: { host: '127.0.0.1', port: 9_100 }, log: 'json' })
    expect(run('--max-memory 512MiB --metrics [::]:0 app.js')).toMatchObject({ maxMemoryBytes: 536_870_912, metrics: { host: '::', port: 0 } })
    expect(run('--metrics 0.0.0.0:9100 app.js')).toMatchObject({ metrics: { host: '0.0.0.0', port: 9_100 } })
  })

  it('does not take the value of an inline option from the next word', () => {
    expect(run('--import=tsx app.ts')).toMatchObject({ nodeOptions: ['--import=tsx'], script: 'app.ts' })
    expect(run('--inspect app.js')).toMatchObject({ nodeOptions: ['--inspect'], script: 'app.js' })
  })

  it.each([
    ['', /no script was given/], ['--workers 2', /no script/], ['--import', /--import needs a value/], ['--workers 0 app.js', /--workers is "0", expected a whole number from 1/],
    ['--workers -1 app.js', /--workers needs a value/], ['--workers 1.5 app.js', /"1.5"/], ['--workers 4096 app.js', /from 1 to 1024/], ['--name a/b app.js', /--name is "a\/b"/],
    ['--hang-timeout 5 app.js', /with its unit/], ['--max-memory 512 app.js', /a size with its unit/], ['--metrics 70000 app.js', /a port, or an address/], ['--log xml app.js', /text or json/], ['-e 1', /-e of Node does not start a server/], ['--watch app.js', /--watch of Node/], ['--shared=no app.js', /--shared takes no value/], ['--spare no app.js', /--spare is "no", expected on or off/], ['-', /no script/]
  ])('says what is wrong with %j', (line, says) => {
    expect(failure(`run ${line}`)).toMatchObject({ message: expect.stringMatching(says), status: 2 })
  })
})

describe('handover reload', () => {
  it('says "Under a keeper" of just those options that a process without a keeper refuses', () => {
    expect(optionsOf('reload').filter(([, { kept }]) => kept).map(([name]) => name).sort()).toEqual([...needsKeeper].sort())
  })

  it('asks for nothing special without options', () => {
    expect(parsed('reload')).toEqual({ is: 'reload', options: {}, timeoutMs: 120_000, json: false })
  })

  it('knows every option, before and after the name', () => {
    expect(parsed('reload --wait shop --canary 2 --bake 30s --probe /healthz --parallel --workers 4 --allow-drop --json --timeout 2m')).toEqual({
      is: 'reload', target: 'shop', timeoutMs: 120_000, json: true,
      options: { wait: true, canary: 2, bakeMs: 30_000, probe: '/healthz', parallel: true, workers: 4, allowDrop: true }
    })
    expect(parsed('reload 4312 --keeper')).toEqual({ is: 'reload', target: '4312', options: { keeper: true }, timeoutMs: 120_000, json: false })
  })

  it.each([['500ms', 500], ['30s', 30_000], ['2m', 120_000], ['1.5s', 1_500], ['1h', 3_600_000], ['0', 0], ['0s', 0]])('understands the time %s', (text, ms) => {
    expect(parsed(`reload --bake ${text}`)).toMatchObject({ options: { bakeMs: ms } })
  })

  it.each([
    ['--bake 30', /--bake is "30", expected a time with its unit: 500ms, 30s, 2m, or 0/], ['--bake soon', /"soon"/], ['--bake 999h', /"999h"/], ['--bake', /--bake needs a value/], ['--bake --wait', /--bake needs a value/],
    ['--probe healthz', /--probe is "healthz", expected a path that begins with "\/"/], ['--canary 0', /whole number from 1/], ['--canary 1000000', /--canary is "1000000", expected a whole number from 1 to 999999/], ['--workers 0', /--workers is "0"/], ['--nonsense', /unknown option "--nonsense"/],
    ['-x', /unknown option "-x"/], ['--wait=yes', /--wait takes no value/], ['one two', /one name or pid is expected, found "one two"/]
  ])('says what is wrong with %j, in one line', (line, says) => {
    const { message, status } = failure(`reload ${line}`)
    expect(message).toMatch(says)
    expect(message).not.toContain('\n')
    expect(message).toMatch(/See handover reload --help\.$/)
    expect(status).toBe(2)
  })
})

it('status, stop and drill know their options', () => {
  expect(parsed('status')).toEqual({ is: 'status', watch: false, json: false })
  expect(parsed('status shop --watch --json')).toEqual({ is: 'status', target: 'shop', watch: true, json: true })
  expect(parsed('drill --report out.svg')).toMatchObject({ options: { report: 'out.svg' } })
  expect(parsed('report --open')).toEqual({ is: 'report', svg: false, open: true })
  expect(parsed('status --web 127.0.0.1:0')).toMatchObject({ web: { host: '127.0.0.1', port: 0 } })
  expect(parsed('stop shop --json')).toEqual({ is: 'stop', target: 'shop', json: true })
  expect(parsed('drill')).toEqual({ is: 'drill', options: { connections: 50, durationMs: 2_000, json: false } })
  expect(parsed('drill shop --url http://127.0.0.1:3000/ --path /a --connections 9 --duration 5s --json'))
    .toEqual({ is: 'drill', options: { target: 'shop', url: 'http://127.0.0.1:3000/', path: '/a', connections: 9, durationMs: 5_000, json: true } })
})

it.each([
  ['--url 3000', /--url is "3000", expected an address/], ['--url ftp://localhost/', /--url is "ftp:/], ['--path no-slash', /expected a path that begins with "\/"/],
  ['--connections 0', /whole number from 1/], ['--duration=-1s', /with its unit/]
])('handover drill says what is wrong with %j', (line, says) => {
  expect(failure(`drill ${line}`)).toMatchObject({ message: expect.stringMatching(says) as string, status: 2 })
})

it('no command shows the overview; one that does not exist is an error that says where to look', () => {
  expect(failure('restart')).toMatchObject({ message: 'handover: unknown command "restart", expected run, reload, status, stop, drill, report, completion. See handover --help.', status: 2 })
  expect(parsed('')).toEqual({ is: 'print', text: overview })
  expect(failure('--wait')).toMatchObject({ status: 2 })
  expect(failure('constructor')).toMatchObject({ status: 2 })
})

it('every help text has at most 25 lines of at most 80 columns, and is printed for its command', () => {
  for (const [name, text] of [['', overview], ...Object.entries(helpOf)]) {
    expect(parsed(`${name} --help`)).toEqual({ is: 'print', text })
    const lines = text!.trimEnd().split('\n')
    expect(lines.length, name).toBeLessThanOrEqual(25)
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80)
  }
  expect(parsed('help reload')).toEqual({ is: 'print', text: helpOf.reload })
  expect(parsed('run -h')).toEqual({ is: 'print', text: helpOf.run })
})

it('every option of the table is known, and stands in the help of its command', () => {
  const examples = { TIME: '1s', N: '1', 'N|max': 'max', NAME: 'x', '/PATH': '/x', URL: 'http://127.0.0.1/', 'on|off': 'on', SIZE: '1G', PORT: '[::1]:9100', 'text|json': 'json', FILE: 'out.html' }
  for (const name of Object.keys(commands) as CommandName[]) {
    for (const [option, { value, text }] of optionsOf(name)) {
      const line = `${name} --${option} ${value === undefined ? '' : examples[value]} ${name === 'run' ? 'app.js' : ''}`
      expect(() => parsed(line), line).not.toThrow()
      expect(helpOf[name]).toMatch(new RegExp(`^  --${option}${value === undefined ? '' : ` ${value.replace('|', '[|]')}`} {2,}`, 'm'))
      expect(helpOf[name]).toContain(text)
    }
  }
})

it.each([
  ['relod', 'reload'], ['relo', 'reload'], ['RELOAD', 'reload'], ['sotp', 'stop'], ['reload --jsn', '--json'], ['reload --withoutstate', '--without-state'], ['reload --para', '--parallel'],
  ['run --worker 4 app.js', '--workers'], ['repor', 'report'], ['status --wach', '--watch'], ['completion fsh', 'fish'], ['--versoin', '--version'], ['help drll', 'drill']
])('of %j it is said what was meant', (line, meant) => {
  const { message, status } = failure(line)
  expect(message).toContain(` Did you mean ${meant}? See handover `)
  expect(status).toBe(2)
})

it.each(['restart', 'x', 'reload --nonsense', 'reload -x', 'completion tcsh'])('of %j nothing is guessed, and what there is is listed', (line) => {
  const { message } = failure(line)
  expect(message).not.toContain('Did you mean')
  expect(message).toContain(', expected ')
})

it('an option of Node or V8 is never taken for a mistyped one of ours', () => {
  for (const option of ['--inspect', '--max-old-space-size=1', '--max-semi-space-size=1', '--trace-warnings', '--expose-gc', '--stack-size=900', '--no-opt', '--sparkplug', '--title=x', '--trace-gc', '--max-lazy', '--harmony']) {
    expect(parsed(`run ${option} app.js`)).toMatchObject({ options: { script: 'app.js' } })
  }
})
