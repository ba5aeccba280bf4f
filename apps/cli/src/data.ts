import { dataSchema } from '@convoy/coordinator'
import { describeDataset } from '@convoy/data'
import { loadData } from './dataset.ts'
import { Display, styleFor } from './display.ts'
import { grouped } from './format.ts'
import { EXIT } from './schemas.ts'
import { collect, type Given } from './options.ts'

/** `convoy data prepare` and `convoy data info`. */
export async function showData(
  name: 'prepare' | 'info',
  given: Given,
  options: { json?: boolean },
): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const dataset = await loadData(collect(dataSchema, given), display)
  const description = describeDataset(dataset)
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ event: 'data', ...description })}\n`)
    return EXIT.done
  }
  display.say(`data         ${dataset.origin}`)
  display.say(
    `images       ${grouped(dataset.train.count)} to train, ${grouped(dataset.test.count)} to test, ${dataset.shape.join('×')}`,
  )
  display.say(`fingerprint  ${dataset.fingerprint}`)
  if (name === 'info') {
    const list = (values: readonly number[]) => values.map((value) => value.toFixed(4)).join(' ')
    display.say(`mean         ${list(description.mean)}`)
    display.say(`deviation    ${list(description.deviation)}`)
    display.say('classes      in the order of their numbers; images to train / to test')
    dataset.classes.forEach((label, i) =>
      display.say(
        `  ${`${i} ${JSON.stringify(label)}`.padEnd(20)} ${grouped(description.trainCounts[i])} / ${grouped(description.testCounts[i])}`,
      ),
    )
    if (description.skipped.length > 0) display.say('left out, since they cannot be decoded:')
    for (const line of description.skipped) display.say(`  ${line}`)
  } else
    display.say(
      `ready        ./convoy train --data ${dataset.name === 'synthetic' ? 'synthetic' : String(given.flags['data'] ?? 'auto')}`,
    )
  return EXIT.done
}
