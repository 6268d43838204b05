import type { AsyncApiOptions } from 'nestjs-mqtt/asyncapi'
import { alarmLog, setPoints } from '../topics.js'

/** What the document contains besides the handlers. */
export const asyncApi: AsyncApiOptions = {
  title: 'Cold-chain operations',
  version: '0.1.0',
  description: 'Shows refrigerated trucks, records their alarms, and sends them commands.',
  sends: [alarmLog, setPoints],
}
