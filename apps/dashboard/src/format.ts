const NONE = '–'

type Maybe = number | null | undefined

/** Made once, since making one takes longer than all else of an update. */
export const grouped = new Intl.NumberFormat('en-US')

const is = (value: Maybe): value is number => typeof value === 'number' && Number.isFinite(value)

export const whole = (value: Maybe) => (is(value) ? grouped.format(Math.round(value)) : NONE)
export const percent = (share: Maybe, digits = 2) =>
  is(share) ? `${(100 * share).toFixed(digits)}\u00a0%` : NONE
export const cost = (value: Maybe) =>
  is(value) ? (value < 1e5 ? value.toFixed(4) : value.toExponential(2)) : NONE
export const speed = (value: Maybe) =>
  is(value) ? (value < 100 ? value.toFixed(1) : grouped.format(Math.round(value))) : NONE

export const pixels = (value: Maybe) => (is(value) ? `${value}\u00a0px` : NONE)

/** A learning rate in three digits. */
export function rate(value: Maybe): string {
  if (!is(value)) return NONE
  if (value === 0) return '0'
  return value < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)))
}

/** Seconds as `45 s`, `12 min 30 s`, `3 h 05 min` or `2 d 4 h`. */
export function duration(seconds: Maybe): string {
  if (!is(seconds)) return NONE
  const s = Math.round(seconds)
  const two = (n: number) => String(n).padStart(2, '0')
  if (s < 60) return `${s} s`
  if (s < 3_600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${two(Math.floor((s % 3_600) / 60))} min`
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`
}

/** Bytes in decimal units. */
export function bytes(count: Maybe): string {
  if (!is(count)) return NONE
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(count) / 3))
  const value = count / 1000 ** power
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)}\u00a0${units[power]}`
}

/** The time of day, with the date where it is not today. */
export function clock(milliseconds: number): string {
  if (milliseconds === 0) return NONE
  const date = new Date(milliseconds)
  const two = (n: number) => String(n).padStart(2, '0')
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  if (date.toDateString() === new Date().toDateString()) return time
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time.slice(0, 5)}`
}
