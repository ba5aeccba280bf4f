const STYLE =
  'text{font:12px sans-serif;fill:#566170}.grid{stroke:#d9dfe7}.mark{stroke:#8a94a3;stroke-dasharray:4 3}.line{fill:none;stroke-width:1.2;stroke-linejoin:round}'

/**
 * A chart of apps/cli/src/chart.ts without its page: with its own style, on white, and its legend inside.
 *
 * @param legend Text with `tspan`s.
 * @param over What its horizontal axis is.
 */
export function standalone(figure: string, legend: string, over = 'the steps of the run'): string {
  const svg = figure.slice(figure.indexOf('<svg'), figure.indexOf('</figure>'))
  return svg
    .replace('the steps of the run', over)
    .replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ')
    .replace('>', `><style>${STYLE}</style><rect width="100%" height="100%" fill="#fff"/>`)
    .replace('</svg>', `<text x="470" y="24" text-anchor="end">${legend}</text></svg>`)
}
