// The three trucks that are compared: their names, line styles, and what their curves mean right now.

export const LANES = {
  drop: {
    name: 'drop, the default',
    code: "publish(telemetry, reading, { whenBlocked: 'drop' })",
    dash: [],
    width: 2.5,
    says: {
      free: 'Every reading arrives at once, because the link has room.',
      throttled:
        'What cannot be sent within a second is dropped, so what arrives is never much older than a second.',
      stalled:
        'Nothing gets through, and nothing piles up: the first reading after the stall will be a new one.',
      closed:
        'Without a connection readings are dropped, so the first one after the outage will be a new one.',
    },
  },
  latest: {
    name: 'latest',
    code: "publish(telemetry, reading, { whenBlocked: 'latest' })",
    dash: [8, 4],
    width: 2.5,
    says: {
      free: 'Every reading arrives at once, because the link has room.',
      throttled: 'Only the newest reading waits for the link, so fewer arrive and each one is fresh.',
      stalled: 'One reading waits, always the newest, and it goes first when the link moves again.',
      closed: 'One reading waits, always the newest, and it goes first after the outage.',
    },
  },
  mqtt: {
    name: 'plain mqtt',
    code: 'client.publish(topic, JSON.stringify(reading))',
    dash: [2, 3],
    width: 3,
    says: {
      free: 'As fresh as the others, as long as the link has room.',
      throttled:
        'Nothing is dropped, so every reading waits behind all earlier ones and arrives later than the last.',
      stalled: 'Every reading is kept and waits, so after the stall you see the past first.',
      closed: 'Every reading is kept and waits, so after the outage you see the past first.',
    },
  },
}

const OLD_MS = 1_500
const BUSY = 'Broker and service are busy with the garbage, and every reading waits for them.'

/** Creates the cards beside the curves. Returns a function that updates them. */
export function createLanes(list, compared) {
  const cards = compared.map(({ truckId, kind }) => {
    const { name, code, dash, width } = LANES[kind]
    const card = document.createElement('li')
    card.className = 'lane'
    card.style.setProperty('--series', `var(--${kind})`)
    card.innerHTML = `
      <div class="lane-head">
        <span class="lane-name"><svg viewBox="0 0 30 8" aria-hidden="true"><line x1="0" y1="4" x2="30" y2="4"
          stroke="var(--${kind})" stroke-width="${width}" stroke-dasharray="${dash.join(' ')}"/></svg>${name}</span>
        <span class="lane-age" data-age>–</span>
      </div>
      <code>${truckId} · <span data-drops>0</span> dropped per second</code>
      <p data-says></p>`
    card.title = code
    list.append(card)
    return card
  })
  return ({ sample, condition, isFlooding }) => {
    for (const [index, { kind }] of compared.entries()) {
      const ageMs = sample.agesMs[index]
      write(cards[index], 'age', ageMs === null ? '–' : `${(ageMs / 1_000).toFixed(1)} s`)
      write(cards[index], 'drops', String(sample.dropsPerSecond[index]))
      const isOld = ageMs !== null && ageMs > OLD_MS
      write(cards[index], 'says', isOld && isFlooding ? BUSY : saying(kind, condition.mode, isOld))
    }
  }
}

function saying(kind, mode, isOld) {
  if (mode === 'free' && isOld) {
    return kind === 'mqtt'
      ? 'The link is free again, but everything that waited has to arrive first.'
      : 'The link is free again. It reconnects, and the next reading will be a new one.'
  }
  return LANES[kind].says[mode]
}

function write(card, name, text) {
  const element = card.querySelector(`[data-${name}]`)
  if (element.textContent !== text) element.textContent = text
}
