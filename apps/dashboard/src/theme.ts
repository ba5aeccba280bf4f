const KEY = 'convoy-theme'
const order = ['auto', 'light', 'dark'] as const
type Theme = (typeof order)[number]

const names: Record<Theme, string> = { auto: 'System', light: 'Light', dark: 'Dark' }

/** Has a button go through the themes; the choice is remembered. `changed` is called when colours change. */
export function watchTheme(button: HTMLElement, changed: () => void): void {
  let theme: Theme = order.find((one) => one === localStorage.getItem(KEY)) ?? 'auto'
  const apply = () => {
    if (theme === 'auto') delete document.documentElement.dataset['theme']
    else document.documentElement.dataset['theme'] = theme
    button.textContent = `◐ ${names[theme]}`
    button.setAttribute('aria-label', `${names[theme]} theme`)
  }
  button.addEventListener('click', () => {
    theme = order[(order.indexOf(theme) + 1) % order.length]
    localStorage.setItem(KEY, theme)
    apply()
    changed()
  })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed)
  apply()
}
