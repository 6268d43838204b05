export interface Reading {
  readonly temperatureCelsius: number
  /** When it was measured, ISO 8601. */
  readonly at: string
}

export interface Alarm {
  readonly active: boolean
  /** When the cargo became too warm, or cold enough again, ISO 8601. */
  readonly since: string
  readonly temperatureCelsius: number
  readonly limitCelsius: number
}

const DEFAULT_LIMIT_CELSIUS = -15
const READINGS_KEPT = 20
/** As many readings in a row must agree before the alarm changes. */
const READINGS_THAT_DECIDE = 3

export class Truck {
  limitCelsius = DEFAULT_LIMIT_CELSIUS
  /** Undefined until the first readings agree. */
  alarm: Alarm | undefined
  /** The last ones, the newest at the end. */
  readonly readings: Reading[] = []

  constructor(readonly id: string) {}

  get lastReading(): Reading | undefined {
    return this.readings.at(-1)
  }

  record(reading: Reading): void {
    this.readings.push(reading)
    if (this.readings.length > READINGS_KEPT) this.readings.shift()
    this.judge(reading)
  }

  private judge({ temperatureCelsius, at }: Reading): void {
    const { limitCelsius } = this
    const deciding = this.readings.slice(-READINGS_THAT_DECIDE)
    if (deciding.length < READINGS_THAT_DECIDE) return
    const active = temperatureCelsius > limitCelsius
    const agree = deciding.every(reading => reading.temperatureCelsius > limitCelsius === active)
    if (!agree || this.alarm?.active === active) return
    this.alarm = { active, since: at, temperatureCelsius, limitCelsius }
  }
}
