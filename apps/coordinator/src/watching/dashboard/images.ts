import { decodeImage } from '@convoy/data'
import { asConvoyError, ConvoyError } from '@convoy/errors'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { securityHeaders } from './assets.ts'

/** Bytes of an image that the page may send; the page says so too. */
const LARGEST = 20_000_000
/** Height and width that an image may be resized to. */
const [SMALLEST_SIDE, LARGEST_SIDE] = [1, 512]
/** Images decoded at a time: the training has the machine. */
const AT_ONCE = 2

let decoding = 0

/**
 * Answers `POST /image?side=N&name=NAME`: decodes the body as `convoy predict` does, resizes it to N×N, and gives RGB bytes
 * [N, N, 3]; or an error as JSON with its code, message and remedy. Never rejects.
 */
export async function serveImage(
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const refuse = (status: number, { code, message, remedy }: ConvoyError) => {
    // What was not read of the body must not be taken for the next request.
    response.writeHead(status, {
      ...securityHeaders,
      'content-type': 'application/json',
      connection: 'close',
    })
    response.end(JSON.stringify({ code, message, remedy }))
  }
  const side = Number(url.searchParams.get('side'))
  const name = (url.searchParams.get('name') ?? 'the image').slice(0, 100)
  const tooLarge = () =>
    new ConvoyError(
      'E_DATA_IMAGE',
      `${name} has more than ${LARGEST / 1e6} MB`,
      'Give an image of at most 20 MB.',
    )
  if (!Number.isInteger(side) || side < SMALLEST_SIDE || side > LARGEST_SIDE)
    return refuse(
      400,
      new ConvoyError(
        'E_USAGE',
        `an image of ${side} pixels cannot be had`,
        `Ask for ${SMALLEST_SIDE} to ${LARGEST_SIDE}.`,
      ),
    )
  if (Number(request.headers['content-length']) > LARGEST) return refuse(413, tooLarge())
  if (decoding >= AT_ONCE)
    return refuse(
      503,
      new ConvoyError('E_DATA_IMAGE', 'other images are being decoded', 'Try again in a moment.'),
    )
  decoding++
  try {
    const parts: Buffer[] = []
    let size = 0
    for await (const part of request as AsyncIterable<Buffer>) {
      parts.push(part)
      size += part.length
      if (size > LARGEST) return refuse(413, tooLarge())
    }
    const pixels = await decodeImage(Buffer.concat(parts), side, name)
    response.writeHead(200, { ...securityHeaders, 'content-type': 'application/octet-stream' })
    response.end(pixels)
  } catch (error) {
    // Where the sender went, nobody hears this.
    refuse(400, asConvoyError(error))
  } finally {
    decoding--
  }
}
