// Finds a Python interpreter. The link is written in Python, because Node.js cannot set segment or receive buffer sizes.
import { spawnSync } from 'node:child_process'

const CANDIDATES = ['python3', '/usr/bin/python3']
const runs = (python, code) =>
  spawnSync(python, ['-c', code], { stdio: 'ignore', timeout: 10_000 }).status === 0

export function findPython({ isPahoNeeded }) {
  const code = isPahoNeeded ? 'import paho.mqtt.client' : ''
  const python = CANDIDATES.find(candidate => runs(candidate, code))
  if (python !== undefined) return python
  throw new Error(
    isPahoNeeded
      ? 'no Python with paho-mqtt: install the Debian package python3-paho-mqtt, or name the subjects without paho'
      : 'no python3',
  )
}
