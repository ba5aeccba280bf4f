/** Folders of apps/coordinator/src: each may import those after it, and the files beside them. The last know of no other. */
const order = ['run', 'relay', 'watching', 'server', 'training', 'cluster']

const source = '^apps/coordinator/src'
const folders = `${source}/(?:${order.join('|')})/`

/** Which file may import which, types included; see ARCHITECTURE.md. Floors are held by eslint.config.mjs. */
export default {
  forbidden: [
    {
      name: 'no-circle',
      comment: 'Whoever reads one file of a circle has to read all of them.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    ...order.map((folder) => ({
      name: `door-of-${folder}`,
      comment: `What ${folder} is to others stands in its index.ts.`,
      severity: 'error',
      from: { pathNot: `${source}/${folder}/` },
      to: { path: `${source}/${folder}/`, pathNot: `${source}/${folder}/index\\.ts$` },
    })),
    ...order.slice(1).map((folder, i) => ({
      name: `${folder}-imports-no-${order.slice(0, i + 1).join('-')}`,
      comment: `The order is ${order.join(' → ')}.`,
      severity: 'error',
      from: { path: `${source}/${folder}/` },
      to: { path: `${source}/(?:${order.slice(0, i + 1).join('|')})/` },
    })),
    {
      name: 'vocabulary-imports-no-folder',
      comment: 'What lies beside the folders is what all of them speak of; index.ts is the door of them all.',
      severity: 'error',
      from: { path: `${source}/[^/]+$`, pathNot: '/index\\.ts$' },
      to: { path: folders },
    },
  ],
  options: {
    includeOnly: '^(?:apps|libs|test)/',
    // Tests and what only they use look behind doors.
    exclude: 'node_modules|dist/|\\.tests?\\.ts$|/fixtures\\.ts$',
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import'], extensions: ['.ts'] },
  },
}
