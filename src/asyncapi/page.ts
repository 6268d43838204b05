import { createHash } from 'node:crypto'
import type {
  AsyncApiChannel,
  AsyncApiDocument,
  AsyncApiMessage,
  AsyncApiOperation,
  AsyncApiReference,
  AsyncApiServer,
} from './document.js'
import { Html, html } from './page-html.js'
import { schemaHtml } from './page-schema.js'
import { STYLE } from './page-style.js'

/** Number of channels on one page, so that an application with 10,000 handlers has a page that a browser shows at once. */
const CHANNELS_PER_PAGE = 50

/** The page has no script, and loads nothing. */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  'img-src data:',
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** The part of the document that is requested. */
export interface PageRequest {
  /** Shows channels and operations that contain this text. */
  readonly filter: string
  /** Starts at 1. */
  readonly page: number
  /** Addresses of the document, relative to the page. */
  readonly jsonUrl: string
  readonly yamlUrl: string
}

interface Entry {
  readonly name: string
  readonly channel: AsyncApiChannel
  readonly operations: [string, AsyncApiOperation][]
  /** The text that the filter searches, in lower case. */
  readonly text: string
}

/** Renders a document as pages of HTML. */
export class AsyncApiPage {
  private readonly entries: readonly Entry[]

  constructor(private readonly document: AsyncApiDocument) {
    const byChannel = new Map<string, [string, AsyncApiOperation][]>()
    for (const [name, operation] of Object.entries(document.operations)) {
      const { $ref } = operation.channel
      byChannel.set($ref, [...(byChannel.get($ref) ?? []), [name, operation]])
    }
    this.entries = Object.entries(document.channels).flatMap(([name, channel]) => {
      const operations = byChannel.get(`#/channels/${name}`)
      return operations === undefined ? [] : [entryOf(name, channel, operations)]
    })
  }

  render({ filter, page, jsonUrl, yamlUrl }: PageRequest): string {
    const { title, version, description } = this.document.info
    const wanted = filter.trim().toLowerCase()
    const found = wanted === '' ? this.entries : this.entries.filter(({ text }) => text.includes(wanted))
    const pages = Math.max(1, Math.ceil(found.length / CHANNELS_PER_PAGE))
    const current = Math.min(Math.max(1, page), pages)
    const shown = found.slice((current - 1) * CHANNELS_PER_PAGE, current * CHANNELS_PER_PAGE)
    return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<style>${new Html(STYLE)}</style>
</head>
<body>
<header><div>
<h1>${title} <small>${version}</small></h1>
${paragraph(description)}
<div class="links"><a href="${jsonUrl}">JSON</a><a href="${yamlUrl}">YAML</a><span class="soft">AsyncAPI ${this.document.asyncapi}</span></div>
</div></header>
<main>
${this.serversHtml()}
<h2 id="channels">Channels <span class="soft">${countOf(found.length, this.entries.length)}</span></h2>
<form role="search"><input type="search" name="filter" value="${filter}" placeholder="Topic or handler" aria-label="Filter by topic or handler"><button>Filter</button></form>
${shown.map(entry => this.channelHtml(entry))}
${shown.length === 0 ? html`<p class="soft">${wanted === '' ? 'There are no handlers and no published contracts.' : 'No topic or handler contains this text.'}</p>` : undefined}
${pagesHtml(current, pages, filter)}
</main>
</body>
</html>
`.toString()
  }

  private serversHtml(): Html {
    const servers = Object.entries(this.document.servers)
    if (servers.length === 0) return html``
    return html`<h2>Servers</h2><div class="servers">${servers.map(([name, server]) => serverHtml(name, server))}</div>`
  }

  private channelHtml({ name, channel, operations }: Entry): Html {
    const { address, description, parameters = {}, servers = [] } = channel
    const filter = channel['x-mqtt-topic-filter']
    const several = Object.keys(this.document.servers).length > servers.length
    return html`<article id="${name}">
<h3><a href="#${name}">${addressHtml(address ?? '')}</a></h3>
<div class="title"><span class="soft">Topic Filter <code>${filter}</code></span>${several ? servers.map(server => html`<span class="chip">${keyOf(server)}</span>`) : undefined}</div>
${paragraph(description)}
${parametersHtml(parameters)}
${operations.map(([id, operation]) => this.operationHtml(id, operation, description))}
</article>`
  }

  private operationHtml(id: string, operation: AsyncApiOperation, known: string | undefined): Html {
    const { action, title, description, messages, reply } = operation
    const kind = reply === undefined ? action : 'request'
    const label = reply === undefined ? action : action === 'send' ? 'send request' : 'request'
    return html`<section id="${id}">
<div class="title"><span class="badge ${kind}">${label}</span>${title === undefined ? undefined : html`<span class="name">${title}</span>`}${chipsOf(operation)}</div>
${description === known ? undefined : paragraph(description)}
${messages.map(message => this.messageHtml(reply === undefined ? 'Payload' : 'Request', message))}
${reply?.messages.map(message => this.messageHtml('Response', message))}
</section>`
  }

  private messageHtml(heading: string, { $ref }: AsyncApiReference): Html {
    const [, , channel = '', , key = ''] = $ref.split('/')
    const message: AsyncApiMessage | undefined = this.document.channels[channel]?.messages[key]
    const { payload, title, contentType } = message ?? {}
    const words = [title, contentType].filter(word => word !== undefined).join(', ')
    const schema =
      payload === undefined
        ? html`<div class="plain soft">No schema.</div>`
        : schemaHtml(this.document, payload)
    return html`<h4>${heading}${words === '' ? undefined : html` · ${words}`}</h4>${schema}`
  }
}

function entryOf(name: string, channel: AsyncApiChannel, operations: Entry['operations']): Entry {
  const words = operations.flatMap(([id, { title, description }]) => [id, title, description])
  const text = [channel.address, channel['x-mqtt-topic-filter'], channel.description, ...words]
  return { name, channel, operations, text: text.join('\n').toLowerCase() }
}

const keyOf = ({ $ref }: AsyncApiReference): string => $ref.slice($ref.lastIndexOf('/') + 1)

const paragraph = (text: string | undefined): Html | undefined =>
  text === undefined || text.trim() === '' ? undefined : html`<p>${text.trim()}</p>`

function countOf(found: number, all: number): string {
  return found === all ? String(all) : `${found} of ${all}`
}

/** The address with its parameters in a colour of their own. */
function addressHtml(address: string): Html {
  const parts = address.split(/(\{[^}]*\})/)
  return html`${parts.map((part, index) => (index % 2 === 1 ? html`<b>${part}</b>` : levelsHtml(part)))}`
}

/** A long topic breaks after a slash. */
const levelsHtml = (text: string): Html[] =>
  text.split('/').map((level, index) => (index === 0 ? html`${level}` : html`/<wbr>${level}`))

function parametersHtml(parameters: NonNullable<AsyncApiChannel['parameters']>): Html | undefined {
  const list = Object.entries(parameters)
  if (list.length === 0) return undefined
  return html`<dl>${list.map(([name, { description }]) => html`<dt><code>${name}</code></dt><dd class="soft">${description}</dd>`)}</dl>`
}

function chipsOf(operation: AsyncApiOperation): Html[] {
  const { qos, retain, messageExpiryInterval } = operation.bindings.mqtt
  const group = operation['x-mqtt-shared-group']
  const chips = [
    qos === undefined ? undefined : `QoS ${String(qos)}`,
    retain === true ? 'retained' : undefined,
    typeof messageExpiryInterval === 'number' ? `expires after ${messageExpiryInterval} s` : undefined,
    group === undefined ? undefined : `shared group ${group}`,
  ]
  return chips.filter(chip => chip !== undefined).map(chip => html`<span class="chip">${chip}</span>`)
}

function serverHtml(name: string, server: AsyncApiServer): Html {
  const { host, pathname = '', protocol, protocolVersion, description, security = [] } = server
  const binding = server.bindings?.mqtt ?? {}
  const session = binding['cleanSession']
  const rows: [string, string | undefined][] = [
    ['MQTT version', protocolVersion],
    ['Security', security.length === 0 ? 'none' : security.map(keyOf).join(', ')],
    [
      'Session',
      session === undefined
        ? undefined
        : session === true
          ? 'ends with the connection'
          : 'kept by the broker',
    ],
  ]
  const shown = rows.flatMap(([term, value]) =>
    value === undefined ? [] : [html`<dt>${term}</dt><dd>${value}</dd>`],
  )
  return html`<div class="server"><div class="title"><span class="name">${name}</span><span class="chip">${protocol}</span></div><code>${host}${pathname}</code>${paragraph(description)}<dl>${shown}</dl></div>`
}

function pagesHtml(current: number, pages: number, filter: string): Html | undefined {
  if (pages === 1) return undefined
  const link = (page: number, text: string): Html => {
    const query = new URLSearchParams({ ...(filter === '' ? {} : { filter }), page: String(page) })
    return page < 1 || page > pages ? html`<span></span>` : html`<a href="?${query.toString()}">${text}</a>`
  }
  return html`<nav aria-label="Pages">${link(current - 1, 'Previous')}<span class="soft">Page ${current} of ${pages}</span>${link(current + 1, 'Next')}</nav>`
}
