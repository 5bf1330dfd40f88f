/**
 * The site of `npm run docs`, as Chromium shows it: every page with its heading, its code and its place in the sidebar, on a wide and on a
 * narrow screen; every link leads to a page, and to a heading in it; nothing comes from another place. Skipped, as the name says, where
 * the site has not been built or Chromium is missing; .ci/run has both. HANDOVER_SCREENSHOTS=FOLDER keeps a picture of each page.
 */

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { Browser } from '../helpers/browser.js'
import { waitFor } from '../helpers/program.js'

const docs = fileURLToPath(new URL('../../docs', import.meta.url))
const site = path.join(docs, '.vitepress', 'dist')
const reasons = [existsSync(site) ? '' : 'npm run docs has not built the site', spawnSync('chromium', ['--version']).error ? 'no chromium here' : ''].filter((reason) => reason !== '')
const skipped = reasons.length > 0 ? ` (skipped: ${reasons.join(', ')})` : ''

const types: Readonly<Record<string, string>> = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json' }

interface Seen {
  readonly heading: string
  readonly blocks: number
  readonly active: string | undefined
  readonly ids: readonly string[]
  readonly links: readonly string[]
}

const active = '.VPSidebarItem.is-active.is-link a'

const look = `({
  heading: document.querySelector('h1').firstChild.textContent.trim(),
  blocks: document.querySelectorAll('.vp-doc pre').length,
  active: document.querySelector('${active}')?.getAttribute('href'),
  ids: [...document.querySelectorAll('.vp-doc [id]')].map(({ id }) => id),
  links: [...document.querySelectorAll('.vp-doc a[href], .VPSidebar a[href]')].map(({ href }) => href)
})`

test.skipIf(skipped !== '')(`Chromium shows every page of the site, and every link in it leads somewhere${skipped}`, { timeout: 180_000 }, async () => {
  const missing: string[] = []
  const server = http.createServer((request, response) => {
    const file = path.join(site, decodeURIComponent(new URL(request.url!, 'http://localhost').pathname).replace(/\/$/, '/index.html'))
    if (!file.startsWith(site) || !existsSync(file)) {
      if (!file.endsWith('favicon.ico')) missing.push(request.url!)
      response.writeHead(404).end()
      return
    }
    response.writeHead(200, { 'content-type': types[path.extname(file)] ?? 'application/octet-stream' }).end(readFileSync(file))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const pictures = process.env['HANDOVER_SCREENSHOTS']
  if (pictures) mkdirSync(pictures, { recursive: true })
  try {
    await using browser = await Browser.start(origin)
    const seen = new Map<string, Seen>()
    const tooWide: string[] = []
    for (const name of readdirSync(docs).filter((file) => file.endsWith('.md')).map((file) => file.replace('.md', ''))) {
      const text = readFileSync(path.join(docs, `${name}.md`), 'utf8')
      await browser.resize(1280, 900)
      await browser.goTo(`${origin}/${name}.html`)
      // The sidebar knows its page once the page's own code runs.
      if (name !== 'index') await waitFor(() => browser.evaluate<boolean>(`document.querySelector('${active}') !== null`))
      const page = await browser.evaluate<Seen>(look)
      expect(page, name).toMatchObject({ heading: /^# (.*)$/m.exec(text)?.[1]?.replaceAll('`', ''), blocks: [...text.matchAll(/^```\w*$/gm)].length / 2 })
      if (name !== 'index') expect(page.active, name).toBe(`/${name}.html`)
      if (pictures) writeFileSync(path.join(pictures, `${name}.png`), await browser.screenshot())
      await browser.resize(400, 800)
      if (await browser.evaluate<boolean>('document.documentElement.scrollWidth > 400')) tooWide.push(name)
      seen.set(`/${name}.html`, page)
    }
    expect(tooWide).toEqual([])
    const broken = [...seen].flatMap(([from, { links }]) => links.filter((link) => {
      const { origin: place, pathname, hash } = new URL(link)
      const target = seen.get(pathname === '/' ? '/index.html' : pathname)
      return place === origin && (!target || (hash !== '' && !target.ids.includes(decodeURIComponent(hash.slice(1)))))
    }).map((link) => `${from}: ${link}`))
    expect({ broken, missing, complaints: browser.complaints }).toEqual({ broken: [], missing: [], complaints: [] })
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
