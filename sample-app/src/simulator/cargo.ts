const OUTSIDE_CELSIUS = 22
/** Fraction of the difference to the target temperature that one step covers. */
const WARMING = 0.03
const COOLING = 0.06
const NOISE_CELSIUS = 0.3

/** The air around the cargo of a refrigerated truck. */
export class Cargo {
  isDoorOpen = false
  private currentCelsius: number

  constructor(private readonly setPointCelsius: number) {
    this.currentCelsius = setPointCelsius
  }

  /** Advances the simulation by one step. */
  step(): void {
    const aimCelsius = this.isDoorOpen ? OUTSIDE_CELSIUS : this.setPointCelsius
    const pace = this.isDoorOpen ? WARMING : COOLING
    const noiseCelsius = (Math.random() - 0.5) * NOISE_CELSIUS
    this.currentCelsius += (aimCelsius - this.currentCelsius) * pace + noiseCelsius
  }

  /** Rounded to hundredths of a degree. */
  get temperatureCelsius(): number {
    return Number(this.currentCelsius.toFixed(2))
  }
}
