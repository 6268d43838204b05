import * as v from 'valibot'
import { expect, it, vi } from 'vitest'
import { jsonSchemaOf } from '../../src/asyncapi/json-schemas.js'

vi.mock('@valibot/to-json-schema', () => {
  throw new Error('Cannot find package')
})

it('a schema of valibot without its converter is an error that names the package to install', async () => {
  await expect(jsonSchemaOf('Devices.onState', v.string())).rejects.toMatchObject({
    code: 'INVALID_OPTION',
    message: expect.stringMatching(/^Devices\.onState: .*npm install @valibot\/to-json-schema$/),
  })
})
