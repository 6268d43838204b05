const OUTSIDE_CELSIUS = 22
/** Share of the difference to the target temperature that one step covers. */
const WARMING = 0.004
const COOLING = 0.012
const NOISE_CELSIUS = 0.06
const HIGHEST_NOTE = 240

/** What the sensors of a truck measure: the air around its cargo, its position, and its compressor. */
export class Cargo {
  isDoorOpen = false
  private currentCelsius: number
  private heading = Math.random() * 2 * Math.PI
  private latitude = 47 + Math.random() * 6
  private longitude = 7 + Math.random() * 6

  constructor(public setPointCelsius: number) {
    this.currentCelsius = setPointCelsius
  }

  /** Advances the simulation by one step, a tenth of a second. */
  step(): void {
    const aimCelsius = this.isDoorOpen ? OUTSIDE_CELSIUS : this.setPointCelsius
    const pace = this.isDoorOpen ? WARMING : COOLING
    this.currentCelsius += (aimCelsius - this.currentCelsius) * pace + (Math.random() - 0.5) * NOISE_CELSIUS
    this.heading += (Math.random() - 0.5) * 0.2
    this.latitude += Math.sin(this.heading) * 2e-5
    this.longitude += Math.cos(this.heading) * 3e-5
  }

  get celsius(): number {
    return rounded(this.currentCelsius, 2)
  }

  measure() {
    return {
      celsius: this.celsius,
      latitude: rounded(this.latitude, 5),
      longitude: rounded(this.longitude, 5),
      vibration: Array.from({ length: HIGHEST_NOTE }, (_, note) =>
        rounded(Math.random() / (1 + note / 40), 3),
      ),
    }
  }
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
