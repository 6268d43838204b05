// The Grafana dashboard, in the classic JSON model, which every supported version of Grafana imports.
import {
  GraphDrawStyle,
  LegendDisplayMode,
  LegendPlacement,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common'
import {
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard'
import { DataqueryBuilder } from '@grafana/grafana-foundation-sdk/prometheus'
import { PanelBuilder } from '@grafana/grafana-foundation-sdk/timeseries'
import { ROWS, VARIABLES } from './panels.mjs'

export const FILE = new URL('../../docs/grafana/nestjs-mqtt.json', import.meta.url)

// biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of Grafana
const SOURCE = { type: 'prometheus', uid: '${datasource}' }
/** Of a panel, by the number of panels in its row; a line has 24. */
const WIDTHS = { 3: 8, 4: 6, 5: 8, 8: 6 }
const HEIGHT = 8

/** The content of the file. */
export function dashboardText() {
  return `${JSON.stringify(dashboard(), undefined, 2)}\n`
}

function dashboard() {
  const builder = new DashboardBuilder('MQTT (nestjs-mqtt)')
    .uid('nestjs-mqtt')
    .description('Metrics of nestjs-mqtt/opentelemetry.')
    .tags(['mqtt', 'nestjs'])
    .editable()
    .refresh('30s')
    .time({ from: 'now-1h', to: 'now' })
    .tooltip(DashboardCursorSync.Crosshair)
    .withVariable(new DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'))
  for (const variable of VARIABLES) builder.withVariable(variableOf(variable))
  let id = 0
  for (const { title, panels } of ROWS) {
    id += 1
    builder.withRow(new RowBuilder(title).id(id))
    for (const panel of panels) {
      id += 1
      builder.withPanel(panelOf(panel).id(id).span(WIDTHS[panels.length]))
    }
  }
  return builder.build()
}

function variableOf({ name, label, query }) {
  return new QueryVariableBuilder(name)
    .label(label)
    .datasource(SOURCE)
    .query({ query, refId: name })
    .definition(query)
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue('.*')
    .current({ selected: true, text: ['All'], value: ['$__all'] })
}

function panelOf({ title, description, unit = 'short', kind = 'lines', queries }) {
  const panel = new PanelBuilder()
    .title(title)
    .datasource(SOURCE)
    .unit(unit)
    .min(0)
    .height(HEIGHT)
    .drawStyle(GraphDrawStyle.Line)
    .fillOpacity(kind === 'areas' ? 40 : 10)
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi))
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(true),
    )
  if (description !== undefined) panel.description(description)
  if (kind === 'areas') panel.stacking(new StackingConfigBuilder().mode(StackingMode.Normal))
  for (const [index, { expr, legend }] of queries.entries())
    panel.withTarget(
      new DataqueryBuilder()
        .datasource(SOURCE)
        .refId(String.fromCharCode(65 + index))
        .expr(expr)
        .legendFormat(legend)
        .range(),
    )
  return panel
}
