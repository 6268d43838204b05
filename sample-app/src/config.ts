import { Module } from '@nestjs/common'

/** The validated environment variables. */
export class Config {
  /** Address of the HTTP server. With port 0 the operating system chooses a port. */
  readonly host: string
  readonly port: number
  /** URL of the broker. Undefined: use the embedded one. */
  readonly mqttUrl: string | undefined
  /** Port of the embedded broker. If it is in use, the operating system chooses a port. */
  readonly mqttPort: number
  /** Runs mosquitto instead of the embedded broker, and this many instances of the service. */
  readonly mosquitto: boolean
  readonly instances: number
  /** Name of this instance of the service, and its Client Identifier. */
  readonly instance: string
  /** Folder of the history of alarms. */
  readonly dataFolder: string
  /** Number of simulated trucks. 0: only the service. */
  readonly trucks: number

  constructor(env: NodeJS.ProcessEnv) {
    const { HOST, PORT, MQTT_URL, MQTT_PORT, INSTANCE, TRUCKS, MOSQUITTO, INSTANCES, DATA_FOLDER } = env
    this.host = HOST || '127.0.0.1'
    this.port = readInteger('PORT', PORT || '3000', 0, 65_535)
    this.mqttUrl = MQTT_URL || undefined
    this.mqttPort = readInteger('MQTT_PORT', MQTT_PORT || '1883', 0, 65_535)
    this.mosquitto = MOSQUITTO === 'true'
    this.instances = readInteger('INSTANCES', INSTANCES || '1', 1, 9)
    this.instance = INSTANCE || 'operations-1'
    this.dataFolder = DATA_FOLDER || 'data'
    this.trucks = readInteger('TRUCKS', TRUCKS || '12', 0, 200)
  }
}

/**
 * Share Name of the subscription to alarms, if there are several instances of the service: each alarm then goes to one of
 * them. Decorators are evaluated before Nest creates a provider, so this is not a part of `Config`.
 */
export const { SHARED_GROUP } = process.env

function readInteger(name: string, value: string, least: number, most: number): number {
  const number = Number(value)
  if (/^\d+$/.test(value) && number >= least && number <= most) return number
  throw new Error(`${name} must be an integer from ${least} to ${most}, but is "${value}"`)
}

@Module({
  providers: [{ provide: Config, useFactory: () => new Config(process.env) }],
  exports: [Config],
})
export class ConfigModule {}
