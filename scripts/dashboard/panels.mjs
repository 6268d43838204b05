// What the dashboard shows. The names are those of @opentelemetry/exporter-prometheus.

/** Variables of the dashboard. A client that has never been connected has no broker; "All" includes it. */
const CHOSEN = 'job=~"$job",server_address=~"$broker"'
const FILTER = 'messaging_destination_template'

const of = (metric, labels = '') => `${metric}{${CHOSEN}${labels === '' ? '' : `,${labels}`}}`
const rate = (metric, labels) => `rate(${of(metric, labels)}[$__rate_interval])`
const increase = (metric, labels) => `increase(${of(metric, labels)}[$__rate_interval])`
const sumBy = (labels, expression) => `sum by (${labels.join(', ')}) (${expression})`
const requests = matcher =>
  rate('messaging_client_operation_duration_count', `messaging_operation_name="request",${matcher}`)

/** Median and 99th percentile of a histogram. */
const percentiles = (histogram, labels = [], matchers = '') =>
  [50, 99].map(percent => ({
    expr: `histogram_quantile(${percent / 100}, ${sumBy(['le', ...labels], rate(`${histogram}_bucket`, matchers))})`,
    legend: [...labels.map(label => `{{${label}}}`), `p${percent}`].join(' '),
  }))

const one = (expr, legend) => [{ expr, legend }]

/** `kind` is `lines` unless set; `unit` is a unit of Grafana. */
export const ROWS = [
  {
    title: 'Connection',
    panels: [
      {
        title: 'Clients by connection state',
        description: 'Clients that stay in another state than "connected" cannot reach their broker.',
        kind: 'areas',
        queries: one(
          sumBy(['mqtt_connection_state'], of('mqtt_client_connections')),
          '{{mqtt_connection_state}}',
        ),
      },
      {
        title: 'Lost connections',
        description: 'Connections that ended without close().',
        queries: one(sumBy(['job'], increase('mqtt_client_connection_losses_total')), '{{job}}'),
      },
      {
        title: 'Link age',
        description:
          'Time from PINGREQ to PINGRESP: how old data is when it reaches the broker. It grows if the link is slower than the data.',
        unit: 's',
        queries: percentiles('mqtt_client_link_age'),
      },
      {
        title: 'Link rate',
        description: 'What the links have carried while they were the limit; 0 if they never were.',
        unit: 'Bps',
        queries: one(sumBy(['job'], of('mqtt_client_link_rate')), '{{job}}'),
      },
    ],
  },
  {
    title: 'Publishing',
    panels: [
      {
        title: 'Publishes by outcome',
        unit: 'ops',
        kind: 'areas',
        queries: one(sumBy(['mqtt_outcome'], rate('mqtt_client_publishes_total')), '{{mqtt_outcome}}'),
      },
      {
        title: 'Publishes that did not arrive, by reason',
        description:
          '"dropped": not sent. "refused": the broker refused it. "lost": unknown. "rejected": invalid.',
        unit: 'ops',
        queries: one(
          sumBy(['mqtt_outcome', 'mqtt_reason'], rate('mqtt_client_publishes_total', 'mqtt_reason!=""')),
          '{{mqtt_outcome}}: {{mqtt_reason}}',
        ),
      },
      {
        title: 'In flight',
        description: 'QoS 1 and 2 publishes that are not acknowledged yet.',
        queries: one(sumBy(['job'], of('mqtt_client_in_flight')), '{{job}}'),
      },
      {
        title: 'Queued',
        description:
          '"out": publishes that wait for the link. "in": received messages that wait for a handler.',
        queries: one(sumBy(['mqtt_direction'], of('mqtt_client_queued')), '{{mqtt_direction}}'),
      },
      {
        title: 'Duration of a publish, by topic pattern',
        description: 'Until the message is written (QoS 0) or acknowledged (QoS 1 and 2).',
        unit: 's',
        queries: percentiles(
          'messaging_client_operation_duration',
          [FILTER],
          'messaging_operation_name="publish"',
        ),
      },
    ],
  },
  {
    title: 'Store',
    panels: [
      {
        title: 'Stored messages',
        description: 'Messages on disk that the broker has not acknowledged.',
        queries: one(sumBy(['job'], of('mqtt_client_store_messages')), '{{job}}'),
      },
      {
        title: 'Size of the store',
        unit: 'bytes',
        queries: one(sumBy(['job'], of('mqtt_client_store_size')), '{{job}}'),
      },
      {
        title: 'Age of the oldest stored message',
        unit: 's',
        queries: one(`max by (job) (${of('mqtt_client_store_oldest')})`, '{{job}}'),
      },
      {
        title: 'Stored messages by outcome',
        description: '"evicted", "expired", "refused" and "set-aside" messages never arrive.',
        unit: 'ops',
        queries: one(sumBy(['mqtt_outcome'], rate('mqtt_client_store_outcomes_total')), '{{mqtt_outcome}}'),
      },
      {
        title: 'Failed calls of the store',
        description: 'The disk is full, read-only or damaged.',
        queries: one(sumBy(['job'], of('mqtt_client_store_failures')), '{{job}}'),
      },
    ],
  },
  {
    title: 'Handlers',
    panels: [
      {
        title: 'Messages received, by filter',
        unit: 'ops',
        queries: one(sumBy([FILTER], rate('messaging_client_consumed_messages_total')), `{{${FILTER}}}`),
      },
      {
        title: 'Duration of a handler, by filter',
        description: 'Includes retries and the dead letter.',
        unit: 's',
        queries: percentiles('messaging_process_duration', [FILTER]),
      },
      {
        title: 'Deliveries by outcome',
        unit: 'ops',
        kind: 'areas',
        queries: one(sumBy(['mqtt_outcome'], rate('mqtt_client_deliveries_total')), '{{mqtt_outcome}}'),
      },
      {
        title: 'Failed runs, by filter and error',
        description: 'Runs of a handler that failed after all of their retries.',
        unit: 'ops',
        queries: one(
          sumBy([FILTER, 'error_type'], rate('messaging_process_duration_count', 'error_type!=""')),
          `{{${FILTER}}}: {{error_type}}`,
        ),
      },
      {
        title: 'Dead letters, by filter of the handler',
        unit: 'ops',
        queries: one(
          sumBy([FILTER], rate('mqtt_client_deliveries_total', 'mqtt_outcome="deadLettered"')),
          `{{${FILTER}}}`,
        ),
      },
      {
        title: 'Dead letters sent, by topic',
        unit: 'ops',
        queries: one(
          sumBy(
            [FILTER],
            rate('messaging_client_sent_messages_total', 'messaging_operation_name="dead-letter"'),
          ),
          `{{${FILTER}}}`,
        ),
      },
      {
        title: 'Redeliveries, by filter',
        description: 'Messages with DUP: the broker has delivered them before.',
        unit: 'ops',
        queries: one(sumBy([FILTER], rate('mqtt_client_redeliveries_total')), `{{${FILTER}}}`),
      },
      {
        title: 'Handler slots',
        description:
          'Without free slots, messages wait although their handlers are idle. See inbound.concurrency.',
        kind: 'areas',
        queries: one(sumBy(['mqtt_slot_state'], of('mqtt_client_handler_slots')), '{{mqtt_slot_state}}'),
      },
    ],
  },
  {
    title: 'Requests',
    panels: [
      {
        title: 'Requests sent, by result',
        unit: 'ops',
        queries: [
          { expr: sumBy([], requests('error_type=""')), legend: 'succeeded' },
          { expr: sumBy(['error_type'], requests('error_type!=""')), legend: '{{error_type}}' },
        ],
      },
      {
        title: 'Duration of a request, by topic pattern',
        description: 'Until the last response has arrived.',
        unit: 's',
        queries: percentiles(
          'messaging_client_operation_duration',
          [FILTER],
          'messaging_operation_name="request"',
        ),
      },
      {
        title: 'Responses sent',
        unit: 'ops',
        queries: one(
          sumBy(['job'], rate('messaging_client_sent_messages_total', 'messaging_operation_name="respond"')),
          '{{job}}',
        ),
      },
    ],
  },
]

export const VARIABLES = [
  { name: 'job', label: 'Job', query: 'label_values(mqtt_client_connections, job)' },
  {
    name: 'broker',
    label: 'Broker',
    query: 'label_values(mqtt_client_connections{job=~"$job"}, server_address)',
  },
]
