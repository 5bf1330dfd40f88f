/** `handover report`: one page that loads nothing, and in which nothing of the app is obeyed. */

import { expect, it } from 'vitest'
import type { AppStatus } from '@handover/core/internal'
import { pageOf, svgOf } from '../../helpers/internals.js'
import { Keeping } from '../../helpers/keeping.js'

const bad = `<script>alert("x")</script>&'`

it('shows the last reload of each slot, with its phases and its connections', async () => {
  await using app = await Keeping.start({ workers: 2 })
  expect((await app.run('reload', '--bake', '0', '--wait')).status).toBe(0)
  const { stdout, status } = await app.run('report')
  expect(status).toBe(0)
  expect(stdout).toMatch(/^<!doctype html>[^]*<\/html>\n$/)
  expect(stdout).toMatch(/Reloaded in \d/)
  expect(stdout.match(/<title>commit: /g)).toHaveLength(2)
  expect(stdout).toContain('0 cut')
  // Nothing is loaded: the only address is the name of the SVG format.
  expect(stdout.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:|src=|href=|url\(|<script|@import/)
  expect((await app.run('report', '--svg')).stdout).toMatch(/^<svg [^]*<\/svg>\n$/)
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
