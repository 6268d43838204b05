import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'

/** Links to a heading that does not exist. VitePress itself only finds links to pages that do not exist. */
export function deadAnchors(folder) {
  const pages = new Map()
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' }))
    if (file.endsWith('.html')) pages.set(file, readFileSync(join(folder, file), 'utf8'))
  const ids = new Map([...pages].map(([file, html]) => [file, new Set(matches(html, /\bid="([^"]+)"/g))]))
  return [...pages].flatMap(([file, html]) =>
    matches(html, /href="([^"]*#[^"]+)"/g)
      .filter(href => !/^[a-z]+:/.test(href))
      .filter(href => !exists(file, href, ids))
      .map(href => `${file} → ${href}`),
  )
}

function exists(file, href, ids) {
  const [path, hash] = href.split('#')
  const target = path === '' ? file : targetOf(file, path)
  return ids.get(target)?.has(decodeURIComponent(hash)) ?? false
}

function targetOf(file, path) {
  const absolute = path.startsWith('/') ? path.slice(1) : posix.join(dirname(file), path)
  if (absolute === '' || absolute.endsWith('/')) return `${absolute}index.html`
  return absolute.endsWith('.html') ? absolute : `${absolute}.html`
}

const matches = (text, pattern) => [...text.matchAll(pattern)].map(([, found]) => found)
