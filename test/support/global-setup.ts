import { ensureMosquitto } from './mosquitto.js'

export default function setup(): void {
  ensureMosquitto()
}
