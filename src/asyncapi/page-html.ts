/** HTML that needs no escaping. */
export class Html {
  constructor(readonly text: string) {}

  toString(): string {
    return this.text
  }
}

type Part = string | number | Html | undefined | readonly Part[]

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
/** Characters that change the direction of the text around them, so that it reads as something else. */
const INVISIBLE = /[\u202a-\u202e\u2066-\u2069]/g

function textOf(part: Part): string {
  if (part === undefined) return ''
  if (part instanceof Html) return part.text
  if (typeof part === 'object') return part.map(textOf).join('')
  return String(part)
    .toWellFormed()
    .replaceAll(/[&<>"']/g, character => ESCAPES[character] ?? '')
    .replaceAll(INVISIBLE, '\ufffd')
}

/** A template whose values are escaped, unless they are `Html`. */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(strings.map((string, index) => string + textOf(parts[index])).join(''))
}
