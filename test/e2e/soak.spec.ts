import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { expect, it } from 'vitest'
import { BROKEN } from '../../soak/broken.mjs'
import { Stage } from '../../soak/stage.mjs'

it.each(Object.entries(BROKEN))(
  'the broken build %s of the soak has one place in the build to break',
  (_name, { file, find, laws }) => {
    const text = readFileSync(new URL(`../../dist/${file}`, import.meta.url), 'utf8')
    expect(text.split(find)).toHaveLength(2)
    expect(laws).not.toHaveLength(0)
  },
)

it('the soak leaves no broker behind, whatever ends it', async () => {
  const stage = new Stage(1)
  await stage.open([])
  const { port } = await stage.broker.call('place')
  expect(await stage.close(false)).toEqual([])
  const [error] = await once(connect(port, '127.0.0.1'), 'error')
  expect(error).toMatchObject({ code: 'ECONNREFUSED' })
})
