import { readFileSync } from 'node:fs'

/** An import of the reader's own file, with names or only for its effects. The pages have no extension in it, as in CommonJS. */
export const RELATIVE_IMPORT = /\b(from|import) '(\.{1,2}\/[^']+)'/g

/**
 * The code blocks of a Markdown file. A block whose first line is a comment with a path, such as `// src/main.ts`, is
 * a whole file: the tests write it there, compile it and run it. `ts ignore` marks code of another package.
 */
export function docBlocks(file) {
  const lines = readFileSync(file, 'utf8').split('\n')
  const blocks = []
  let open
  for (const [index, line] of lines.entries()) {
    const fence = /^```(\w*)( ignore)?$/.exec(line)
    if (open === undefined && fence !== null)
      open = { language: fence[1], isForeign: fence[2] !== undefined, line: index + 2, code: [] }
    else if (open !== undefined && line === '```') {
      blocks.push(blockOf(open))
      open = undefined
    } else open?.code.push(line)
  }
  return blocks
}

function blockOf({ language, isForeign, line, code }) {
  const path = /^(?:\/\/|#) ([\w./-]+\.(?:ts|mts|mjs|cjs|js|py|json))$/.exec(code[0] ?? '')?.[1]
  return { language, isForeign, line, path, code: `${code.join('\n')}\n` }
}
