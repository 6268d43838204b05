/** The environment variables, read and checked once. */
export class Config {
  /** Where HTTP listens; port 0 lets the operating system choose. */
  readonly host: string
  readonly port: number
  /** The broker to use; undefined for the embedded one. */
  readonly mqttUrl: string | undefined
  /** Where the embedded broker listens, unless the port is taken. */
  readonly mqttPort: number
  readonly mqttClientId: string
  /** Whether simulated trucks drive. */
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
  throw new Error(`${name}: "${value}" was given, allowed is a number from 0 to 65535`)
}

function readFlag(name: string, value: string): boolean {
  if (value === 'true' || value === 'false') return value === 'true'
  throw new Error(`${name}: "${value}" was given, allowed is true or false`)
}
