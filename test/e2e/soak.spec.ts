import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { BROKEN } from '../../soak/broken.mjs'

it.each(Object.entries(BROKEN))(
  'the broken build %s of the soak has one place in the build to break',
  (_name, { file, find, laws }) => {
    const text = readFileSync(new URL(`../../dist/${file}`, import.meta.url), 'utf8')
    expect(text.split(find)).toHaveLength(2)
    expect(laws).not.toHaveLength(0)
  },
)
