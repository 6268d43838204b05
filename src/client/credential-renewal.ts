import { authenticationFailed } from '../core/connection/authentication.js'
import { describeCause, isMqttError, MqttError } from '../core/errors.js'
import type { MqttCredentials } from '../options/options.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import { invalidOption } from '../options/schema.js'
import type { MqttConnection } from './connection/mqtt-connection.js'
import { limited } from './waits.js'

/** The parts of a session that a renewal of its credentials needs. */
interface RenewedSession {
  readonly options: Pick<ResolvedOptions, 'credentials' | 'authentication' | 'connectTimeoutMs'>
  readonly connection: MqttConnection
}

/** Renews the credentials of an established connection. */
export class CredentialRenewal {
  private running: Promise<void> | undefined

  constructor(private readonly session: RenewedSession) {}

  /**
   * Requests new credentials and authenticates again with them. Calls during a re-authentication share its result.
   * @throws MqttError `INVALID_OPTION`, `CONNECTION_LOST`, `AUTHENTICATION_FAILED`
   */
  reauthenticate(): Promise<void> {
    this.running ??= this.authenticateAgain().finally(() => {
      this.running = undefined
    })
    return this.running
  }

  private async authenticateAgain(): Promise<void> {
    const { connection, options } = this.session
    const { authentication } = options
    if (authentication === undefined)
      throw invalidOption(
        'reauthenticate',
        'this client has no enhanced authentication; set "authentication"',
      )
    const exchange = await this.within(async () => {
      const credentials = await this.fetch()
      return authentication.start({ credentials, isReauthentication: true })
    })
    const again = connection.reauthenticate(exchange)
    if (again === undefined)
      throw new MqttError('CONNECTION_LOST', 'there is no connection that could be authenticated again')
    await again.catch((cause: unknown) => {
      throw isMqttError(cause) ? cause : authenticationFailed(describeCause(cause), { cause })
    })
  }

  private async fetch(): Promise<MqttCredentials> {
    return (await this.session.options.credentials?.()) ?? {}
  }

  /** The functions of the application must not block a renewal for ever. */
  private async within<T>(work: () => Promise<T>): Promise<T> {
    const { connectTimeoutMs } = this.session.options
    try {
      return await limited(work(), 'the request for new credentials', connectTimeoutMs)
    } catch (cause) {
      throw authenticationFailed(`there are no new credentials: ${describeCause(cause)}`, { cause })
    }
  }
}
