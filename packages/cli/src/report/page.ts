/**
 * Pages of HTML that load nothing from the network: the report, which stands alone, and the status, which a script of the same place
 * renews. Whatever comes from the app is escaped. Pure.
 */

import type { AppStatus } from '@handover/core/internal'
import { duration } from '../text.js'
import { drillSvg, overAll, overSwitch, type DrillFigures } from './drill-picture.js'
import { escaped, svgOf } from './picture.js'

/** What `handover status` shows of an app. */
export interface Sheet {
  readonly title: string
  readonly facts: readonly { readonly label: string; readonly text: string; readonly ink?: 'red' | 'green' | 'yellow' }[]
  readonly heads: readonly { readonly head: string; readonly align: 'left' | 'right' }[]
  /** A row a process. The ink is that of its state. */
  readonly rows: readonly { readonly cells: readonly string[]; readonly details: readonly string[]; readonly ink?: 'green' | 'yellow' }[]
}

const style = `:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#1f2430;background:#fff}
h1{font-size:1.4em;margin:1.5em 0 .5em}
pre{white-space:pre-wrap;background:#f5f5f5;padding:1em}
svg{max-width:100%;height:auto;display:block;margin:1em 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;margin:0 0 1em}
dt,.dim{color:#667}
dd{margin:0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.2em .6em;text-align:left;border-top:1px solid #e3e5ea;white-space:nowrap}
th{border:0;font-weight:normal;color:#667;font-size:.85em}
.right{text-align:right}
.details td{border:0;padding-top:0;white-space:normal}
.red{color:#b3261e}.green{color:#2e7d32}.yellow{color:#8a6100}`

/** `head`: more for the head. */
function frame(title: string, head: string, body: string): string {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escaped(title)}</title>${head}<style>${style}</style></head><body>${body}</body></html>\n`
}

const alone = `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`

function reloadOf(app: AppStatus): string {
  const { lastReload } = app
  const error = lastReload?.error
  const outcome = !lastReload ? 'It was not reloaded yet.' : `${lastReload.ok ? 'Reloaded' : 'The reload FAILED'} in ${duration(lastReload.ms)}, at ${new Date(lastReload.at).toISOString()}.`
  const failure = error ? `<pre>${escaped(`${error.code}: ${error.message}\n${error.stderr}`)}</pre>` : ''
  return `<p>${escaped(outcome)}</p>${failure}${svgOf(app)}`
}

/** `at`: as Date.now(). */
export function pageOf(apps: readonly AppStatus[], at: number): string {
  const sections = apps.map((app) => `<section><h1>${escaped(app.name ?? 'an app without a name')}</h1>${reloadOf(app)}</section>`)
  return frame('handover report', alone, `${sections.join('')}<p class="dim">As of ${new Date(at).toISOString()}.</p>`)
}

/** `title`: what was asked and what was lost. `told`: the result as text. */
export function drillPage(title: string, told: string, figures: DrillFigures, at: number): string {
  const switched = drillSvg(`${title} Over the switch`, figures, overSwitch(figures))
  const all = drillSvg(`${title} The whole drill`, figures, overAll(figures))
  return frame('handover drill', alone, `<h1>${escaped(title)}</h1>${switched}${all}<pre>${escaped(told)}</pre><p class="dim">As of ${new Date(at).toISOString()}.</p>`)
}

function statusOf({ title, facts, heads, rows }: Sheet): string {
  const known = facts.map(({ label, text, ink = '' }) => `<dt>${escaped(label)}</dt><dd class="${ink}">${escaped(text)}</dd>`)
  const cell = (name: 'th' | 'td', text: string, index: number, ink = ''): string =>
    `<${name} class="${heads[index]?.align ?? ''} ${heads[index]?.head === 'STATE' ? ink : ''}">${escaped(text)}</${name}>`
  const lines = rows.map(({ cells, details, ink }) => {
    const more = details.map((text) => `<tr class="details dim"><td></td><td colspan="${heads.length - 1}">${escaped(text)}</td></tr>`)
    return `<tr>${cells.map((text, index) => cell('td', text, index, ink)).join('')}</tr>${more.join('')}`
  })
  const table = `<table><tr>${heads.map(({ head }, index) => cell('th', head, index)).join('')}</tr>${lines.join('')}</table>`
  return `<h1>${escaped(title)}</h1><dl>${known.join('')}</dl>${rows.length > 0 ? table : ''}`
}

/** The part of the status page that changes. `sheets`: of the apps, in their order. `note`: where there is no app, or not all answer. */
export function livePart(apps: readonly AppStatus[], sheets: readonly Sheet[], note: string): string {
  const sections = apps.map((app, index) => `<section>${statusOf(sheets[index]!)}${reloadOf(app)}</section>`)
  return `${sections.join('')}${note === '' ? '' : `<p class="red">${escaped(note)}</p>`}`
}

/** Without scripts the whole page is loaded again. */
export function livePage(live: string, query: string): string {
  const again = `<script src="live.js${escaped(query)}" defer></script><noscript><meta http-equiv="refresh" content="2"></noscript>`
  return frame('handover status', again, `<main>${live}</main><p class="dim" id="note"></p>`)
}

export const liveScript = `const main = document.querySelector('main')
const note = document.querySelector('#note')
async function look() {
  try {
    const answer = await fetch('live' + location.search, { cache: 'no-store' })
    if (!answer.ok) throw new Error(answer.statusText)
    main.innerHTML = await answer.text()
    note.textContent = ''
  } catch {
    note.textContent = 'handover status --web does not answer. This is what it said last.'
  }
  setTimeout(look, 1000)
}
look()
`
