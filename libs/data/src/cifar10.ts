import type { FetchOptions, Pinned } from '@convoy/download'

/** The official archive: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. */
const URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
const SHA256 = 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd'

/** The official archive, or another in its place. */
export const officialArchive = (url = URL, sha256 = SHA256): Pinned => ({
  what: 'CIFAR-10',
  name: 'cifar-10-binary.tar.gz',
  sha256,
  address: () => url,
})

/** What errors of fetching CIFAR-10 say, and the space that it takes. */
export const CIFAR10_FETCH = {
  codes: ['E_DATA_DOWNLOAD', 'E_DATA_CHECKSUM'],
  room: '350 MB',
  instead: 'use --data FOLDER or --data synthetic',
} as const satisfies Partial<FetchOptions>
