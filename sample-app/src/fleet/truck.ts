export interface Reading {
  readonly temperatureCelsius: number
  /** Time of the measurement, ISO 8601. */
  readonly at: string
}

export interface Alarm {
  readonly active: boolean
  /** Time of the last change of `active`, ISO 8601. */
  readonly since: string
  readonly temperatureCelsius: number
  readonly limitCelsius: number
}

const DEFAULT_LIMIT_CELSIUS = -15
const READINGS_KEPT = 20
/** Number of consecutive readings that must agree before the alarm changes. */
const READINGS_THAT_DECIDE = 3

export class Truck {
  limitCelsius = DEFAULT_LIMIT_CELSIUS
  /** Undefined until the first readings agree. */
  alarm: Alarm | undefined
  /** The most recent readings, newest last. */
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
