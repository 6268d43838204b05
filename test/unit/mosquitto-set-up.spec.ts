import { describe, expect, it } from 'vitest'
import { ensureMosquitto } from '../support/mosquitto.js'

function set(hasMosquitto: boolean, aptGet: (line: string) => void = () => {}) {
  const done: string[] = []
  const run = () =>
    ensureMosquitto({
      hasMosquitto: () => hasMosquitto,
      say: line => done.push(`says: ${line}`),
      aptGet: (...given) => {
        done.push(`apt-get ${given.join(' ')}`)
        aptGet(given.join(' '))
      },
    })
  return { done, run }
}

describe('the setup of the tests', () => {
  it('announces what it installs before it starts', () => {
    const { done, run } = set(false)
    run()
    expect(done).toEqual([
      'says: These tests need mosquitto mosquitto-clients openssl python3-paho-mqtt. Installing what is missing: apt-get install -y mosquitto mosquitto-clients openssl python3-paho-mqtt',
      'apt-get update',
      'apt-get install -y --no-install-recommends mosquitto mosquitto-clients openssl python3-paho-mqtt',
    ])
  })

  it('installs and prints nothing if mosquitto exists', () => {
    const { done, run } = set(true)
    run()
    expect(done).toEqual([])
  })

  it('says what to do if it cannot install', () => {
    const { run } = set(false, () => {
      throw new Error('not found')
    })
    expect(run).toThrow(
      'apt-get could not install mosquitto mosquitto-clients openssl python3-paho-mqtt. Install them',
    )
  })
})
