import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PickledTensor, PickleError, unpickle } from './pickle.ts'

const bytes = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'))
const text = (value: string) => `X${String.fromCharCode(value.length)}\0\0\0${value}`

describe('#unpickle', () => {
  it('reads what Python writes of dicts, lists, tuples, numbers and text', () => {
    // pickle.dumps({'a': [1, -2, 3.5, None, True], 'b': (300, 70000, 2**40)}, 2)
    const pickled =
      '\x80\x02}q\0(' +
      `${text('a')}q\x01]q\x02(K\x01J\xfe\xff\xff\xffG@\x0c\0\0\0\0\0\0N\x88e` +
      `${text('b')}q\x03M\x2c\x01Jp\x11\x01\0\x8a\x06\0\0\0\0\0\x01\x87q\x04u.`
    expect(unpickle(bytes(pickled))).toEqual(
      new Map<string, unknown>([
        ['a', [1, -2, 3.5, null, true]],
        ['b', [300, 70_000, 2 ** 40]],
      ]),
    )
  })

  it("reads PyTorch's tensors", () => {
    const storage = `(${text('storage')}ctorch\nHalfStorage\n${text('7')}${text('cpu')}K\x06tQ`
    const pickled = `\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(${storage}K\x01K\x02K\x01\x86K\x01K\x02\x86\x89ccollections\nOrderedDict\n)RtR.`
    expect(unpickle(bytes(pickled))).toEqual(
      new PickledTensor({ kind: 'HalfStorage', key: '7' }, 1, [2, 1], [1, 2]),
    )
  })

  it.each([
    ['cos\nsystem\n(X\x02\0\0\0lstR.', 'os.system'],
    ['cbuiltins\neval\n.', 'builtins.eval'],
    [`${text('torch')}${text('load')}\x93.`, 'torch.load'],
    ['ctorch\nstorage._load_from_bytes\n.', 'torch.storage._load_from_bytes'],
  ])('runs nothing: %j', (pickled, name) => {
    expect(() => unpickle(bytes(pickled))).toThrow(expect.objectContaining({ global: name }))
  })

  it('ends with its own error or a value, whatever the bytes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...bytes('(.NJKMGX}])tlaesuqrhj0RQbc\x80\x81\x85\x8a\x93\x94\0\x01\n')), {
          maxLength: 60,
        }),
        (codes) => {
          try {
            unpickle(Uint8Array.from(codes))
          } catch (error) {
            expect(error).toBeInstanceOf(PickleError)
          }
        },
      ),
    )
  })
})
