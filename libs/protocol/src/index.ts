export {
  decodeFrame,
  encodeFrame,
  MAX_HEADER,
  payloadOf,
  openFrame,
  closeFrame,
  RESERVED,
  reserveFrame,
  sealFrame,
  TRAILER,
} from './frame.ts'
export type { Frame } from './frame.ts'
export { PROTOCOL_VERSION, readCoordinatorMessage, readWorkerMessage } from './messages.ts'
export type { CoordinatorMessage, MessageOf, Received, WorkerMessage } from './messages.ts'
export type { Ahead, Computer, Order, Outcome } from './orders.ts'
export { SumFrames } from './sum-frames.ts'
export { HEARTBEAT, noMask, SILENCE, socketOptions } from './socket.ts'
export { curveNames, sizeOfStep } from './live.ts'
export type {
  CurveName,
  LiveHistory,
  LiveMessage,
  LiveNote,
  LivePhase,
  LiveRun,
  LiveSpeeds,
  LiveStatus,
  LiveSummary,
  LiveTest,
  LiveVerdict,
  LiveWorker,
  LiveWorkerState,
  PageMessage,
  Rows,
} from './live.ts'
