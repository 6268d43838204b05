import { post } from './post.js'

const cards = new Map()
const list = document.querySelector('#trucks')

/** Shows every truck: one card each, created once and then updated. */
export function showTrucks(trucks) {
  let hasNew = false
  for (const truck of trucks) {
    const isNew = !cards.has(truck.truckId)
    update(cards.get(truck.truckId) ?? createCard(truck.truckId), truck)
    hasNew ||= isNew
  }
  // The service sorts them.
  if (hasNew) list.replaceChildren(...trucks.map(({ truckId }) => cards.get(truckId)))
}

function createCard(truckId) {
  const card = document.createElement('li')
  card.className = 'truck'
  card.innerHTML = `
    <div class="truck-head"><strong></strong><span><span class="dot"></span> <span data-presence></span></span></div>
    <div class="truck-celsius" data-celsius></div>
    <div class="truck-door"><span data-door></span><span data-age></span></div>
    <div class="set-point">
      <button type="button" class="button" data-step="-1">−</button>
      <span data-set-point></span>
      <button type="button" class="button" data-step="1">+</button>
    </div>`
  // A truck chooses its id, so it is text and not HTML.
  card.querySelector('strong').textContent = truckId
  for (const button of card.querySelectorAll('button')) {
    const step = Number(button.dataset.step)
    button.setAttribute('aria-label', `${step < 0 ? 'Lower' : 'Raise'} the set point of ${truckId}`)
    button.addEventListener('click', () => void command(truckId, Number(card.dataset.setPoint) + step))
  }
  cards.set(truckId, card)
  return card
}

function update(card, { isOnline, door, celsius, setPointCelsius, ageMs }) {
  card.classList.toggle('is-offline', !isOnline)
  card.classList.toggle('is-open', door === 'open')
  card.querySelector('.dot').classList.toggle('is-good', isOnline)
  card.dataset.setPoint = setPointCelsius ?? 0
  write(card, 'presence', isOnline ? 'online' : 'offline')
  write(card, 'celsius', celsius === undefined ? '–' : `${celsius.toFixed(1).replace('-', '−')} °C`)
  write(card, 'door', `Door ${door}`)
  write(card, 'age', ageMs === undefined ? 'no data' : `${(ageMs / 1_000).toFixed(1)} s old`)
  write(
    card,
    'set-point',
    setPointCelsius === undefined ? '–' : `${String(setPointCelsius).replace('-', '−')} °C`,
  )
}

/** The response of the truck is the response of the service. */
async function command(truckId, celsius) {
  const line = document.querySelector('#command')
  line.hidden = false
  line.textContent = `${truckId}: waiting for the response …`
  try {
    const { setPointCelsius } = await post(`trucks/${truckId}/set-point`, { celsius })
    line.textContent = `${truckId} responded: its set point is ${setPointCelsius} °C.`
  } catch (error) {
    line.textContent = `${truckId}: ${error.message}`
  }
}

function write(card, name, text) {
  const element = card.querySelector(`[data-${name}]`)
  if (element.textContent !== text) element.textContent = text
}
