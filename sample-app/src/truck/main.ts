import { join } from 'node:path'
import { FaultLink } from 'nestjs-mqtt/testing'
import * as v from 'valibot'
import { Cargo } from './cargo.js'
import { Driver } from './driver.js'
import { type FromTrucks, type LinkCondition, ProcessPlan, ToTrucks, type TruckPlan } from './messages.js'
import { PlainTruck } from './plain-truck.js'
import { Truck, type Vehicle } from './truck.js'

// A process with one or more trucks. Each truck has its own connection, and its own link to the broker that can fail.

const REPORT_EVERY_MS = 250

const { brokerUrl, storeFolder, trucks } = v.parse(ProcessPlan, JSON.parse(process.argv[2] ?? ''))
const links: FaultLink[] = []
const drivers: Driver[] = []
await Promise.all(trucks.map(startTruck))

process.on('message', message => void obey(v.parse(ToTrucks, message)))
// Ctrl-C reaches every process of the terminal. The demo ends the trucks; if it is gone, the channel to it closes.
process.on('SIGINT', () => {})
process.on('disconnect', () => void stop())
setInterval(report, REPORT_EVERY_MS)
report()

async function startTruck({ truckId, kind, setPointCelsius }: TruckPlan): Promise<void> {
  const { hostname, port } = new URL(brokerUrl)
  const link = await FaultLink.start({ host: hostname, port: Number(port || 1883) })
  links.push(link)
  const cargo = new Cargo(setPointCelsius)
  const vehicle = await startVehicle(kind, { truckId, url: urlThrough(link), cargo })
  const driver = new Driver(vehicle, cargo, (truckId, alarmId, { status }) => {
    // The process may be killed as soon as the alarm is stored, and it counts.
    report()
    tell({ type: 'alarm', truckId, alarmId, status })
  })
  drivers.push(driver)
  driver.start()
}

async function startVehicle(
  kind: TruckPlan['kind'],
  options: { truckId: string; url: string; cargo: Cargo },
): Promise<Vehicle> {
  if (kind === 'mqtt') return new PlainTruck(options)
  const storePath = join(storeFolder, `${options.truckId}.db`)
  const truck = new Truck({ ...options, policy: kind, storePath })
  await truck.start()
  return truck
}

/** The URL of the broker, with its user name and password, and with the address of the link. */
function urlThrough(link: FaultLink): string {
  const url = new URL(brokerUrl)
  url.hostname = '127.0.0.1'
  url.port = String(link.port)
  return url.href
}

async function obey(message: ToTrucks): Promise<void> {
  if (message.type === 'stop') return stop()
  if (message.type === 'use-door') for (const driver of drivers) driver.useDoor()
  if (message.type === 'link') await Promise.all(links.map(link => change(link, message.condition)))
}

async function change(link: FaultLink, condition: LinkCondition): Promise<void> {
  link.heal()
  link.refuse(condition.mode === 'closed')
  if (condition.mode === 'closed') await link.cut()
  if (condition.mode === 'stalled') await link.stall()
  if (condition.mode === 'throttled') link.throttle(condition.bytesPerSecond)
}

function report(): void {
  tell({
    type: 'report',
    trucks: drivers.map(({ vehicle: { truckId, isConnected, readings, alarms } }) => ({
      truckId,
      isConnected,
      readings: readings.counts,
      alarms: alarms.counts,
    })),
  })
}

function tell(message: FromTrucks): void {
  if (process.connected) process.send?.(message)
}

async function stop(): Promise<void> {
  await Promise.all(drivers.map(driver => driver.stop()))
  process.exit(0)
}
