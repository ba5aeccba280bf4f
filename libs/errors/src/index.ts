/**
 * Every error that a user can meet, by its stable code. The sentence says what the code means; the message of
 * a `ConvoyError` says what happened this time, and its remedy what to do.
 */
export const meanings = {
  // Usage and configuration
  E_USAGE: 'The command line, environment or config file asks for something that Convoy does not know.',
  E_MODEL: 'The model is unknown, or its layers do not fit together.',
  // Data sets
  E_DATA_NOT_FOUND: 'The data set is not where it was said to be.',
  E_DATA_DOWNLOAD: 'The data set could not be fetched.',
  E_DATA_CHECKSUM: 'A file is not the one that was expected: its checksum differs.',
  E_DATA_TRUNCATED: 'A data file or archive ends too early.',
  E_DATA_FORMAT: 'A data set is not laid out as Convoy reads it.',
  E_DATA_IMAGE: 'An image cannot be decoded.',
  E_DATA_EMPTY_CLASS: 'A class of the data set has no images.',
  // Weights
  E_WEIGHTS_FILE: 'A weights file is missing, torn, or of no format that Convoy reads.',
  E_WEIGHTS_FIT: 'The weights are of another network.',
  // Engines
  E_ENGINE: 'The engine that was asked for cannot run here.',
  E_ENGINE_GPU: 'A GPU was asked for and would not be used.',
  E_SETUP: 'A library could not be set up.',
  // The wire
  E_PORT_IN_USE: 'The address to listen on is taken.',
  E_UNREACHABLE: 'The coordinator does not answer.',
  E_PROTOCOL_VERSION: 'Coordinator and worker speak different versions of the protocol.',
  E_TOKEN: 'The token is missing or wrong.',
  E_TOKEN_REQUIRED: 'A coordinator that listens beyond loopback needs a token.',
  E_MESSAGE: 'A message is not one that the protocol knows.',
  E_FRAME: 'A message was changed on its way, or is no WebSocket frame.',
  E_TOO_LARGE: 'A message or request is larger than any that is needed.',
  E_RATE: 'A worker sent more than it was asked for.',
  E_BUSY: 'The coordinator has as many connections as it takes.',
  E_HANDSHAKE: 'A connection did not say in time who it is.',
  E_HTTP: 'A request is not HTTP, or asks for a WebSocket in a wrong way.',
  E_NUMERICS: "The worker's numerics class is not the run's.",
  E_GRADIENT: 'A gradient is not usable: NaN, infinite or of the wrong size.',
  E_NOT_FINITE: 'A gradient holds NaN or Inf.',
  E_DISHONEST: 'A worker gave another gradient than others do for the same work.',
  E_NOT_ASKED: 'An answer to something that was not asked.',
  // Runs
  E_RUN: 'The run cannot be started or resumed as asked.',
  E_CHECKPOINT: 'A checkpoint is torn or not of this run.',
  E_DIVERGED: 'The training diverged.',
  E_LEDGER: 'A sample was used twice or not at all in an epoch.',
  E_INTERNAL: 'A defect in Convoy.',
} as const

export type ErrorCode = keyof typeof meanings

/** Whether something (from the wire, say) is a code that this version knows. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(meanings, code)
}

/** An error to be shown to a user: a stable code, what happened, and what to do about it. */
export class ConvoyError extends Error {
  override readonly name = 'ConvoyError'
  readonly code: ErrorCode
  /** What the user can do, as a sentence. */
  readonly remedy: string

  constructor(code: ErrorCode, message: string, remedy: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.remedy = remedy
  }

  /** The lines that a user sees. */
  toText(): string {
    return `${this.code}: ${this.message}\n  ${this.remedy}`
  }
}

/** Whatever was thrown, as a `ConvoyError`. */
export function asConvoyError(thrown: unknown): ConvoyError {
  if (thrown instanceof ConvoyError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new ConvoyError(
    'E_INTERNAL',
    message,
    'This should not happen. Run again with --verbose and report what it prints.',
    { cause: thrown },
  )
}
