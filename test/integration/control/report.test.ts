/** `handover report` and `drill --report`: pages that load nothing, and in which nothing of the app is obeyed. */

import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { AppStatus, ReloadRecord } from '@handover/core/internal'
import { command, Place } from '../../helpers/command.js'
import { drillPage, drillSvg, overAll, overSwitch, pageOf, svgOf } from '../../helpers/internals.js'
import { Keeping } from '../../helpers/keeping.js'

const bad = `<script>alert("x")</script>&'`

/** Nothing is loaded: the only address is the name of the SVG format. */
const loadsNothing = (html: string): void => { expect(html.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/src=|href=|url\(|<script|@import/) }
const times = (html: string, what: RegExp): number => html.match(what)?.length ?? 0

function folderOf(name: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), `handover-${name}-`))
  onTestFinished(() => { rmSync(folder, { recursive: true }) })
  return folder
}

describe('handover report', () => {
  it('shows the last reloads with their phases and connections, also those of the keeper before, and a failed one', async () => {
    await using app = await Keeping.start({ workers: 2 })
    expect((await app.run('reload', '--bake', '0', '--wait')).status).toBe(0)
    expect((await app.run('reload', '--keeper')).status).toBe(0)
    await app.serves()
    expect((await app.run('reload', '--bake', '0', '--wait')).status).toBe(0)
    app.behave('crash-after:100')
    expect((await app.run('reload')).status).toBe(1)
    expect((await app.run('report', '--svg')).stdout).toContain('; it was taken back')
    app.behave('throw')
    expect((await app.run('reload')).status).toBe(1)
    const { stdout, status } = await app.run('report')
    expect(status).toBe(0)
    expect(stdout).toMatch(/^<!doctype html>[^]*<\/html>\n$/)
    expect(stdout).toMatch(/UTC: the reload failed after [^]*UTC: the reload failed after [^]*UTC: reloaded in \d[^]*UTC: reloaded in \d/)
    for (const phase of ['launch', 'prepare', 'commit', 'drains']) expect(times(stdout, new RegExp(`<title>${phase}: `, 'g'))).toBe(5)
    expect(stdout).toMatch(/slot 1: generation 1 \(\d+\)[^]*0 cut/)
    loadsNothing(stdout)
    expect((await app.run('report', '--svg')).stdout).toMatch(/^<svg [^]*<\/svg>\n$/)
  })

  it('--open gives the page to the opener of the system; where there is none, or it fails, it says where the page is', async () => {
    await using app = await Keeping.start()
    const folder = folderOf('opener')
    const env = { HANDOVER_DIR: app.sockets, TMPDIR: folder, PATH: path.join(folder, 'bin') }
    mkdirSync(env.PATH)
    const none = await command(['report', '--open'], env).ended
    expect(none).toMatchObject({ status: 1, stdout: '' })
    const [, file] = /^handover report: xdg-open cannot open the page \(it is not installed\)\. It is in (\S+): open it yourself/.exec(none.stderr) ?? []
    expect(readFileSync(file!, 'utf8')).toMatch(/^<!doctype html>/)
    const opener = path.join(env.PATH, 'xdg-open')
    writeFileSync(opener, `#!/bin/sh\necho "$1" >${path.join(folder, 'opened')}\nexit "$OPENER_STATUS"\n`)
    chmodSync(opener, 0o755)
    const opened = await command(['report', '--open'], { ...env, OPENER_STATUS: '0' }).ended
    expect(opened).toMatchObject({ status: 0, stderr: '' })
    expect(readFileSync(path.join(folder, 'opened'), 'utf8')).toBe(opened.stdout)
    expect(existsSync(opened.stdout.trim())).toBe(true)
    expect(await command(['report', '--open'], { ...env, OPENER_STATUS: '3' }).ended).toMatchObject({ status: 1, stderr: expect.stringContaining('(it ended with status 3)') })
  })

  it('escapes what comes from the app', () => {
    const app: AppStatus = {
      name: bad, keeper: null, service: null, processes: [],
      lastReload: { ok: false, at: 0, ms: 1, switched: [], reports: [], serving: [], error: { code: bad, message: bad, stderr: bad } }
    }
    for (const text of [pageOf([app], 0), svgOf(app)]) {
      expect(text).not.toContain('<script')
      expect(text).not.toContain('alert("')
    }
    expect(pageOf([app], 0)).toContain('&#60;script&#62;alert(&#34;x&#34;)&#60;/script&#62;&#38;&#39;')
  })
})

describe('handover drill --report', () => {
  it('writes a page and a picture of the requests in each 10 ms over the switch, and of who accepted', async () => {
    await using app = await Keeping.start({ workers: 2 })
    const folder = folderOf('drill')
    const page = path.join(folder, 'drill.html')
    const { stdout, status } = await app.run('drill', '--connections', '10', '--duration', '300ms', '--report', page)
    expect(stdout).toContain('Nothing was lost: ')
    expect(status).toBe(0)
    const html = readFileSync(page, 'utf8')
    expect(html).toMatch(/^<!doctype html>[^]*requests, 0 lost\. Over the switch[^]*requests answered in each 10 ms[^]*The whole drill[^]*Nothing was lost: [^]*<\/html>\n$/)
    expect(html).toMatch(/slot 0: generation 1[^]*slot 0: generation 2[^]*slot 1: generation 2/)
    expect(html).not.toMatch(/NaN|undefined|Infinity/)
    loadsNothing(html)
    const refused = await app.run('drill', '--report', path.join(folder, 'missing', 'drill.svg'))
    expect(refused).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(/^handover drill: cannot write .* \(ENOENT\)\. Nothing was reloaded\./) })
    expect(await app.run('drill', '--report', 'drill.pdf')).toMatchObject({ status: 2, stderr: expect.stringContaining('.html or .svg') })
  })

  it('knows a server without a keeper by its last reload, and draws that', async () => {
    await using place = new Place()
    await place.start({ name: 'shop' })
    const picture = path.join(folderOf('plain'), 'drill.svg')
    expect(await place.run('drill', '--connections', '5', '--duration', '200ms', '--report', picture)).toMatchObject({ status: 0 })
    expect(readFileSync(picture, 'utf8')).toMatch(/^<svg [^]*requests answered in each 10 ms[^]*slot 0: generation 1[^]*slot 0: generation 2[^]*0 cut[^]*<\/svg>\n$/)
    expect((await place.run('report')).stdout).toMatch(/UTC: reloaded in \d[^]*slot 0: generation 2/)
  })

  it('draws what was lost, what was taken back, many slots, and a drill whose reload failed', () => {
    const durations = { launch: 100, prepare: 10, commit: 5, move: 3, drain: null }
    const handovers = Array.from({ length: 20 }, (_, slot) =>
      ({ slot, from: { pid: slot, generation: 1 }, to: { pid: 100 + slot, generation: 2 }, at: 1_200 + slot, undoneAt: 1_400, durations }))
    const each = (of: (index: number) => number): number[] => Array.from({ length: 100 }, (_, index) => of(index))
    const lost = each((index) => Number(index === 50))
    const slices = { ms: 10, answers: each(() => 5), lost, slowest: each(() => 9), sums: each(() => 20) }
    const figures = (record: Partial<ReloadRecord>): Parameters<typeof overAll>[0] =>
      ({ beganAt: 1_000, slices, reload: { from: 100, to: 500 }, record: { at: 1_100, ms: 400, handovers: [], ...record } })
    for (const drawn of [figures({ handovers }), figures({ code: 'HANDOVER_SUCCESSOR_EXIT' }), { ...figures({}), slices: { ...slices, answers: [], lost: [], slowest: [], sums: [] } }]) {
      for (const axis of [overSwitch(drawn), overAll(drawn)]) {
        const svg = drillSvg(bad, drawn, axis)
        expect(svg).toMatch(/^<svg [^]*<\/svg>$/)
        expect(svg).not.toMatch(/NaN|undefined|Infinity|<script/)
      }
    }
    const page = drillPage(bad, bad, figures({ handovers }), 0)
    expect(page).toContain('red: lost')
    expect(page).toContain('it was taken back')
    expect(page).toContain('and 4 more handovers')
    loadsNothing(page)
  })
})
