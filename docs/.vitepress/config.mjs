// The site of docs/: `npm run docs` builds it into docs/.vitepress/dist. A page that index.md does not name is not in the sidebar.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { defineConfig } from 'vitepress'

const docs = path.join(import.meta.dirname, '..')

/** The tables of index.md are the sidebar: a heading's first cell is the group, each link a page. */
const sidebar = readFileSync(path.join(docs, 'index.md'), 'utf8').split('\n\n').filter((part) => part.startsWith('|')).map((table) => ({
  text: table.split('|')[1].trim(),
  items: [...table.matchAll(/\[([^\]]+)\]\((\w[\w-]*)\.md\)/g)].map(([, text, link]) => ({ text, link: `/${link}` }))
}))

export default defineConfig({
  title: 'Handover',
  description: 'Reload a Node.js server without losing a request',
  themeConfig: { sidebar, search: { provider: 'local' }, outline: [2, 3] },
  // Links out of docs/ lead to files of the repository, which the site does not have: they are shown as text. A test follows them.
  ignoreDeadLinks: [/^(\.\/)?\.\.\//],
  markdown: {
    // As on GitHub, so that a link works in both places.
    anchor: { slugify: (heading) => heading.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-') },
    config: (markdown) => {
      markdown.core.ruler.push('only-links-of-the-site', ({ tokens }) => {
        for (const { children } of tokens.filter(({ type }) => type === 'inline')) {
          let outside = false
          for (const token of children) {
            if (token.type === 'link_open') outside = token.attrGet('href').startsWith('../')
            if (outside && token.type.startsWith('link_')) Object.assign(token, { type: 'text', tag: '', nesting: 0, content: '', attrs: null })
          }
        }
      })
    }
  }
})
