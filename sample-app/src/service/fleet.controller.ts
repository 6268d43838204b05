import {
  Body,
  Controller,
  Get,
  HttpCode,
  NotFoundException,
  Param,
  Post,
  ServiceUnavailableException,
  Sse,
  UnprocessableEntityException,
} from '@nestjs/common'
import { isMqttError, MqttService, type TopicInput, type TopicResponse } from 'nestjs-mqtt'
import { interval, map, type Observable, startWith } from 'rxjs'
import { type RecordedAlarm, setPoints } from '../topics.js'
import { AlarmHistory } from './alarm-history.js'
import { FleetService, type TruckView } from './fleet.service.js'

const EVENT_EVERY_MS = 250
const RESPONSE_WITHIN_MS = 3_000
const ALARMS_SHOWN = 8

interface Snapshot {
  readonly trucks: readonly TruckView[]
  readonly alarms: {
    readonly total: number
    readonly repeats: number
    readonly deadLettered: number
    readonly latest: readonly RecordedAlarm[]
  }
}

@Controller()
export class FleetController {
  constructor(
    private readonly fleet: FleetService,
    private readonly history: AlarmHistory,
    private readonly mqtt: MqttService,
  ) {}

  @Get('trucks')
  list(): TruckView[] {
    return this.fleet.trucks
  }

  @Get('trucks/:truckId')
  one(@Param('truckId') truckId: string): TruckView {
    const truck = this.fleet.find(truckId)
    if (truck === undefined) throw new NotFoundException(`there is no truck ${truckId}`)
    return truck
  }

  @Get('alarms')
  alarms(): RecordedAlarm[] {
    return this.history.latest(100)
  }

  /** A command is a request over MQTT: the response of the truck is the response of this endpoint. */
  @Post('trucks/:truckId/set-point')
  @HttpCode(200)
  async setPoint(
    @Param('truckId') truckId: string,
    @Body() command: TopicInput<typeof setPoints>,
  ): Promise<TopicResponse<typeof setPoints>> {
    this.one(truckId)
    try {
      return await this.mqtt.request(setPoints.at({ truckId }), command, { timeoutMs: RESPONSE_WITHIN_MS })
    } catch (error) {
      if (!isMqttError(error)) throw error
      if (error.code === 'PAYLOAD_INVALID') throw new UnprocessableEntityException(error.issues)
      throw new ServiceUnavailableException(`${truckId} does not respond: ${error.code}`)
    }
  }

  /** What the page shows, four times a second, as server-sent events. */
  @Sse('events')
  events(): Observable<{ data: Snapshot }> {
    return interval(EVENT_EVERY_MS).pipe(
      startWith(0),
      map(() => ({ data: this.snapshot() })),
    )
  }

  private snapshot(): Snapshot {
    const { total, repeats, deadLettered } = this.history
    return {
      trucks: this.fleet.trucks,
      alarms: { total, repeats, deadLettered, latest: this.history.latest(ALARMS_SHOWN) },
    }
  }
}
