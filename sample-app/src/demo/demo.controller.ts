import { BadRequestException, Body, Controller, Get, HttpCode, Post, Sse } from '@nestjs/common'
import { MqttService } from 'nestjs-mqtt'
import { concat, map, type Observable, of } from 'rxjs'
import * as v from 'valibot'
import { Broker } from '../broker/broker.js'
import { Config } from '../config.js'
import { LinkCondition } from '../truck/messages.js'
import { COMPARED, DemoFleet, MORTAL } from './fleet.js'
import { Meter, type Sample } from './meter.js'
import { Stage } from './stage.js'

const GARBAGE_SECONDS = 10

/** The buttons and the curves of the page. */
@Controller('demo')
export class DemoController {
  constructor(
    private readonly config: Config,
    private readonly broker: Broker,
    private readonly mqtt: MqttService,
    private readonly stage: Stage,
    private readonly fleet: DemoFleet,
    private readonly meter: Meter,
  ) {}

  @Get()
  about() {
    const { state } = this.mqtt
    const { protocol, host } = new URL(this.broker.url)
    return {
      instance: this.config.instance,
      broker: `${protocol}//${host}`,
      isEmbedded: this.broker.isEmbedded,
      protocolVersion: state.status === 'connected' ? state.session.protocolVersion : undefined,
      compared: COMPARED.slice(0, this.config.trucks),
      mortal: MORTAL,
    }
  }

  @Post('link')
  @HttpCode(204)
  link(@Body() body: unknown): void {
    const { success, output, issues } = v.safeParse(LinkCondition, body)
    if (!success) throw new BadRequestException(issues.map(issue => issue.message))
    this.stage.setLink(output)
  }

  @Post('restart-broker')
  @HttpCode(202)
  restartBroker(): void {
    void this.stage.restartBroker()
  }

  @Post('garbage')
  @HttpCode(202)
  garbage(): void {
    if (!this.stage.isFlooding) void this.stage.flood(GARBAGE_SECONDS)
  }

  @Post('kill-truck')
  @HttpCode(202)
  killTruck(): void {
    void this.stage.killTruck()
  }

  /** First the curves of the last two minutes, then each new point. */
  @Sse('events')
  events(): Observable<{ type?: string; data: object }> {
    return concat(
      of({ type: 'history', data: [...this.meter.samples] }),
      this.meter.taken.pipe(map(sample => ({ data: this.snapshot(sample) }))),
    )
  }

  private snapshot(sample: Sample) {
    const { condition, isRestarting, isDead, isFlooding, canRestart, events } = this.stage
    return {
      sample,
      condition,
      service: this.mqtt.state.status,
      canRestart,
      isRestarting,
      isDead,
      isFlooding,
      events,
      promised: this.fleet.promised,
      outstanding: this.fleet.outstanding.size,
      connected: COMPARED.map(({ truckId }) => this.isConnected(truckId)),
    }
  }

  private isConnected(truckId: string): boolean {
    return this.fleet.processOf(truckId)?.reports.get(truckId)?.isConnected ?? false
  }
}
