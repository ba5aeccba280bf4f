export { Budget, HANDSHAKE, dismiss, hangUp } from './limits.ts'
export { CoordinatorServer, isLoopback, type Hall } from './server.ts'
