type Child = Node | string | number | false | null | undefined

/** Makes an element; attributes of value false or undefined are left out. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number | boolean | undefined> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false)
      element.setAttribute(name, value === true ? '' : String(value))
  }
  for (const child of children) {
    if (child !== false && child !== null && child !== undefined)
      element.append(child instanceof Node ? child : String(child))
  }
  return element
}

/** Sets an element's text if it is another: what did not change is not painted, selected or read out again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
}

/** The element of this id, which the page is known to have. */
export function byId(id: string): HTMLElement {
  return document.getElementById(id)!
}

/** Has a screen reader say something when it is free. */
export function announce(text: string): void {
  setText(byId('announcer'), text)
}
