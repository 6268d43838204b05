/** The validated environment variables. */
export class Config {
  /** Address of the HTTP server. With port 0 the operating system chooses a port. */
  readonly host: string
  readonly port: number
  /** URL of the broker. Undefined: use the embedded one. */
  readonly mqttUrl: string | undefined
  /** Port of the embedded broker. If it is in use, the operating system chooses a port. */
  readonly mqttPort: number
  readonly mqttClientId: string
  /** Whether to run the simulated trucks. */
  readonly simulate: boolean

  constructor(env: NodeJS.ProcessEnv) {
    const { HOST, PORT, MQTT_URL, MQTT_PORT, MQTT_CLIENT_ID, SIMULATE } = env
    this.host = HOST || '127.0.0.1'
    this.port = readPort('PORT', PORT || '3000')
    this.mqttUrl = MQTT_URL || undefined
    this.mqttPort = readPort('MQTT_PORT', MQTT_PORT || '1883')
    this.mqttClientId = MQTT_CLIENT_ID || 'cold-chain-fleet'
    // A broker of your own may have real trucks.
    this.simulate = readFlag('SIMULATE', SIMULATE || String(this.mqttUrl === undefined))
  }
}

function readPort(name: string, value: string): number {
  const port = Number(value)
  if (/^\d+$/.test(value) && port <= 65_535) return port
  throw new Error(`${name} must be a number from 0 to 65535, but is "${value}"`)
}

function readFlag(name: string, value: string): boolean {
  if (value === 'true' || value === 'false') return value === 'true'
  throw new Error(`${name} must be true or false, but is "${value}"`)
}
