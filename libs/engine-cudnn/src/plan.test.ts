import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { buildModel, freeze } from '@convoy/model'
import type { Argument, Call } from './calls.ts'
import { Plan } from './plan.ts'

const cifar = { input: [32, 32, 3], classes: 10 } as const
const choose = () => ({ algorithm: 1, workspace: 0 })

const name = (argument: Argument): string =>
  typeof argument === 'number'
    ? String(Number.isInteger(argument) ? argument : +argument.toPrecision(6))
    : argument === null
      ? '-'
      : 'tensor' in argument
        ? `${argument.tensor.name}[${argument.offset}]`
        : argument.name

/** A call as a line: what it is, then shapes and operands. */
function line(call: Call): string {
  switch (call.kind) {
    case 'upload':
      return `upload ${call.tensor.name}: ${call.tensor.type} ${call.tensor.size}`
    case 'download':
      return `download ${call.tensor.name}[${call.offset}]: ${call.tensor.type} ${call.size}`
    case 'convolution': {
      const { pass, type, tf32, image, kernel, output, padding, stride } = call.convolution
      const shapes = `image ${image.join('×')} kernel ${kernel.join('×')} output ${output.join('×')} padding ${padding.join(',')} stride ${stride.join(',')}`
      const operands = [call.image, call.kernel, call.output].map((tensor) => tensor.name)
      return `convolution ${call.name}: ${pass} ${type}${type === 'float32' && tf32 ? ' as TF32' : ''} algorithm ${call.algorithm} ${shapes} (${operands.join(', ')})`
    }
    case 'kernel':
      return `kernel ${call.name}: ${call.entry}(${call.arguments.map(name).join(', ')})`
  }
}

describe('the plan of All-CNN-C', () => {
  // After a change that is meant: UPDATE_RECORDED=1 npx vitest run libs/engine-cudnn/src/plan.test.ts, and read the difference.
  it('has the recorded calls, in bf16 at a leaf of 128', () => {
    const plan = new Plan(choose, buildModel('all-cnn-c', cifar), 128, 'bf16', 'train')
    const { uploads, calls } = plan.steps.stored.drawn
    const text = [
      'load',
      ...plan.load.map(line),
      '',
      'inputs, while the step before is computed',
      ...uploads.map((tensor) => line({ kind: 'upload', tensor })),
      '',
      'step',
      ...calls.map(line),
      '',
    ].join('\n')
    const file = path.join(import.meta.dirname, '../test/all-cnn-c.calls.txt')
    if (process.env['UPDATE_RECORDED']) writeFileSync(file, text)
    expect(text).toBe(readFileSync(file, 'utf8'))
  })

  it('needs fewer calls where the first layers are frozen, and none backwards to predict', () => {
    const model = buildModel('all-cnn-c', cifar)
    const calls = (made: Plan) =>
      made.steps.given.given.calls.filter(({ kind }) => kind === 'convolution').length
    expect(calls(new Plan(choose, model, 4, 'bf16', 'train'))).toBe(9 + 9 + 8)
    expect(calls(new Plan(choose, freeze(model, 'all-but-2'), 4, 'bf16', 'train'))).toBe(9 + 2 + 1)
    expect(calls(new Plan(choose, model, 4, 'bf16', 'predict'))).toBe(9)
  })

  it('shares memory between what does not live at the same time', () => {
    const plan = new Plan(choose, buildModel('all-cnn-c', cifar), 128, 'bf16', 'train')
    const tensors = new Set(
      plan.steps.stored.drawn.calls.flatMap((call) =>
        call.kind === 'kernel'
          ? call.arguments.flatMap((a) =>
              a === null || typeof a === 'number' ? [] : 'tensor' in a ? a.tensor : a,
            )
          : call.kind === 'convolution'
            ? [call.image, call.kernel, call.output]
            : call.tensor,
      ),
    )
    const own = [...tensors].filter(({ input }) => !input)
    const apart = own.reduce((sum, { buffer }) => sum + buffer.bytes, 0)
    expect(plan.bytes).toBeLessThan(0.6 * apart)
    for (const { buffer } of tensors) expect(buffer.offset % 256).toBe(0)
  })
})
