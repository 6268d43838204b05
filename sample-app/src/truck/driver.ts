import { randomUUID } from 'node:crypto'
import type { Cargo } from './cargo.js'
import type { Settled } from './tally.js'
import type { Vehicle } from './truck.js'

const READING_EVERY_MS = 100
const DOOR_EVERY_MS = 20_000
const DOOR_OPEN_MS = 6_000

type AlarmListener = (truckId: string, alarmId: string, outcome: Settled) => void

/** Drives one truck: reads its sensors ten times a second, and opens the door from time to time. */
export class Driver {
  private number = 0
  private readonly timers: NodeJS.Timeout[] = []

  constructor(
    readonly vehicle: Vehicle,
    private readonly cargo: Cargo,
    private readonly onAlarm: AlarmListener,
  ) {}

  start(): void {
    this.timers.push(setInterval(() => this.read(), READING_EVERY_MS))
    // The doors of different trucks open at different times.
    const firstMs = Math.random() * DOOR_EVERY_MS
    this.timers.push(setTimeout(() => this.useDoorAgainAndAgain(), firstMs))
  }

  /** Opens the door for some seconds, or closes it if it is open. Either is an alarm. */
  useDoor(): void {
    if (this.cargo.isDoorOpen) return this.turnDoor(false)
    this.turnDoor(true)
    this.timers.push(setTimeout(() => this.turnDoor(false), DOOR_OPEN_MS))
  }

  async stop(): Promise<void> {
    for (const timer of this.timers) clearTimeout(timer)
    await this.vehicle.close()
  }

  private useDoorAgainAndAgain(): void {
    this.useDoor()
    this.timers.push(setInterval(() => this.useDoor(), DOOR_EVERY_MS))
  }

  private read(): void {
    this.cargo.step()
    this.number += 1
    this.vehicle.publishReading({ number: this.number, atMs: Date.now(), ...this.cargo.measure() })
  }

  private turnDoor(isOpen: boolean): void {
    if (this.cargo.isDoorOpen === isOpen) return
    this.cargo.isDoorOpen = isOpen
    this.vehicle.publishState()
    void this.report(isOpen ? 'door-open' : 'door-closed')
  }

  private async report(kind: 'door-open' | 'door-closed'): Promise<void> {
    const alarm = { alarmId: randomUUID(), atMs: Date.now(), kind, celsius: this.cargo.celsius }
    const outcome = await this.vehicle.publishAlarm(alarm)
    this.onAlarm(this.vehicle.truckId, alarm.alarmId, outcome)
  }
}
