import { isMqttError, type MqttError } from '../../src/core/errors.js'

/** The error of this package that `work` throws. Fails when it throws another one, or none. */
export function errorOf(work: () => unknown): MqttError {
  try {
    work()
  } catch (error) {
    if (isMqttError(error)) return error
    throw new Error(`expected an MqttError, but ${String(error)} was thrown`, { cause: error })
  }
  throw new Error('expected an MqttError, but nothing was thrown')
}
