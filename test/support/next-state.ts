import type { MqttSession } from '../../src/client/mqtt-session.js'
import type { ConnectionState } from '../../src/core/connection/connection-state.js'

/** Resolves when the connection is in a state, at once when it is there already. */
export function nextState(session: MqttSession, status: ConnectionState['status']): Promise<void> {
  return new Promise(resolve => {
    if (session.connection.state.status === status) return resolve()
    const detach = session.connection.attach({
      stateChanged: state => {
        if (state.status !== status) return
        detach()
        resolve()
      },
    })
  })
}
