import { expect, it, vi } from 'vitest'
import { EmbeddedBroker } from '../../src/testing/index.js'

vi.mock('aedes', () => {
  throw new Error('Must use import to load ES Module')
})

it('the embedded broker says which package to install when it cannot load aedes', async () => {
  await expect(EmbeddedBroker.start()).rejects.toThrow(
    'EmbeddedBroker could not load the package aedes. Install it: npm install --save-dev aedes. In Jest before Node 24, which cannot load ES modules: npm install --save-dev aedes@0.51',
  )
})
