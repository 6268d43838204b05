import { once } from 'node:events'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Sample } from './sample.js'

let sample: Sample
let exitCode: number

beforeAll(async () => {
  sample = await Sample.start({}, ['--script', 'bad-day', '--seconds', '24'])
  const [code] = await once(sample.process, 'exit')
  exitCode = code
}, 120_000)

afterAll(() => sample?.kill())

it('loses no promised alarm, and counts every publish once', () => {
  expect(sample.output()).toContain('✓ every publish of every truck has one outcome, or is pending')
  expect(sample.output()).toMatch(/✓ of [1-9]\d* promised alarms none is lost/)
})

it('records alarms between garbage, and keeps no more than may wait', () => {
  expect(sample.output()).toMatch(/✓ [1-9]\d* alarms were recorded between [1-9]\d+ unusable messages/)
  expect(sample.output()).toMatch(/✓ meanwhile the service kept no more than may wait/)
})

it('plays every event, and prints a line for each kind of truck', () => {
  for (const text of [
    'carry 5 KB/s',
    'are cut',
    'broker is back',
    'carry nothing',
    'was killed. It was offline, and an alarm is stored',
    'garbage has ended',
  ])
    expect(sample.output()).toContain(text)
  for (const kind of ['drop', 'latest', 'mqtt'])
    expect(sample.output()).toMatch(new RegExp(`readings, ${kind} +[1-9]\\d`))
  expect(sample.output()).toMatch(/✓ while throttled, the age of the readings with mqtt grows all the time/)
})

it('has exit code 1 only if a law was broken', () => {
  expect(exitCode).toBe(sample.output().includes('BROKEN') ? 1 : 0)
})
