import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { layOut } from './layout.ts'
import { byName } from './names.ts'

const file = (path: string) => ({ path, size: 1 })
const of = (...paths: string[]) => layOut('it', paths.map(file), [])
/** Images as `split/class`, without repetitions. */
const found = (...paths: string[]) => [
  ...new Set(of(...paths).images.map(({ split, label }) => `${split}/${label}`)),
]

describe('layOut', () => {
  it.each([
    ['plain', ['train/a/1.png', 'test/a/1.png'], ['test/a', 'train/a']],
    ['two folders down', ['x/y/train/a/1.png', 'x/y/test/a/1.png'], ['test/a', 'train/a']],
    ['called val', ['train/a/1.png', 'val/a/1.png'], ['train/a', 'test/a']],
    ['called Training and Validation', ['Training/a/1.png', 'Validation/a/1.png'], ['train/a', 'test/a']],
    ['without a split', ['set/a/1.png', 'set/b/1.png'], ['train/a', 'train/b']],
    [
      'with classes called as splits are',
      ['train/test/1.png', 'train/valid/1.png'],
      ['train/test', 'train/valid'],
    ],
    [
      'without a split, with a class called train',
      ['train/1.png', 'car/1.png'],
      ['train/car', 'train/train'],
    ],
    [
      'with folders in a class',
      ['train/a/1.png', 'train/a/more/2.png', 'test/a/1.png'],
      ['test/a', 'train/a'],
    ],
  ])('%s', (_, paths, images) => {
    expect(found(...paths)).toEqual(images)
  })

  it('says what it leaves out', () => {
    const { notes, leftOut } = of(
      ...['train/a/1.png', 'test/a/1.png', 'train/a/2.heic', 'train/a/3.HEIC', 'train/a/notes.txt'],
      ...[
        'val/a/1.png',
        'preview.png',
        'train/.ipynb_checkpoints/1.png',
        '__MACOSX/train/a/._1.png',
        'README.md',
      ],
    )
    expect(notes).toEqual([
      'the 1 images of val/ are left out: test/ is the test set',
      expect.stringMatching(/^hidden .*: __MACOSX, train\/\.ipynb_checkpoints$/),
      '3 files are left out, not being images that can be read: 2 .heic, 1 .txt',
      "1 file is left out, not being in a class's folder: preview.png",
    ])
    expect(leftOut.get('train/a')).toBe('2 .heic, 1 .txt')
  })

  it('knows classes of which there are only folders, or files of other kinds', () => {
    const paths = ['train/a/1.png', 'test/a/1.png', 'train/c/1.heic'].map(file)
    const { classes } = layOut('it', paths, ['train', 'train/b', 'train/.git', 'val/d'])
    expect(classes).toEqual(['a', 'b', 'c'])
  })

  it.each([
    ['two data sets', ['a/train/x/1.png', 'b/train/x/1.png'], /several data sets: a\/, b\//],
    ['two training sets', ['train/x/1.png', 'Train/x/1.png'], /has Train\/ and train\//],
    [
      'images in no class',
      ['train/1.png', 'test/1.png'],
      /in no folders of classes: train\/1.png, test\/1.png/,
    ],
    ['no images', ['a/1.txt'], /holds neither .* but 1 \.txt/],
  ])('refuses %s', (_, paths, message) => {
    expect(() => of(...paths)).toThrow(message)
  })

  it('loses no file without a word', () => {
    const part = fc.constantFrom('train', 'test', 'val', 'a', 'b', 'more', '.git')
    const name = fc.constantFrom('1.png', '2.jpg', '3.heic', '.x.png')
    const path = fc
      .tuple(fc.array(part, { maxLength: 4 }), name)
      .map(([parts, last]) => [...parts, last].join('/'))
    fc.assert(
      fc.property(fc.uniqueArray(path, { minLength: 1, maxLength: 12 }), (paths) => {
        let layout
        try {
          layout = of(...paths)
        } catch (error) {
          expect(error).toMatchObject({ code: 'E_DATA_FORMAT' })
          return
        }
        const visible = paths.filter((one) => !/(^|\/)\./.test(one) && /\.(png|jpg)$/.test(one)).length
        const told = layout.notes
          .filter((note) => /left out/.test(note) && !/not being images/.test(note))
          .reduce((sum, note) => sum + Number(/\d+/.exec(note)![0]), 0)
        expect(layout.images.length + told).toBe(visible)
      }),
      // Once told as an image of val/ and as what is no image.
      { examples: [[['test/train/1.png', 'val/train/3.heic', '1.png']]] },
    )
  })
})

describe('byName', () => {
  it('is the order of code points, as of UTF-8 bytes', () => {
    const name = fc.string({ unit: 'grapheme', maxLength: 6 })
    fc.assert(
      fc.property(name, name, (a, b) => {
        expect(Math.sign(byName(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)))
      }),
    )
    expect(['😀', '～', '2', '10'].sort(byName)).toEqual(['10', '2', '～', '😀'])
  })
})
