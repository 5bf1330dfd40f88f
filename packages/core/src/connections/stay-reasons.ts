/**
 * Why a connection does not move to the successor: codes, which the drain compares, and their texts, which are keys of the report
 * (`connections.stayed`). Pure.
 */

const texts = {
  noSuccessor: 'there is no successor',
  // What the connection is.
  tls: 'TLS',
  http2: 'HTTP/2',
  byHand: 'given to HTTP by the program',
  readByApplication: 'read by the application',
  upgraded: 'upgraded',
  otherProtocol: 'protocol of the application',
  // What others do with it.
  neverAtRest: 'HTTP/2, never between two streams',
  silent: 'HTTP/2, its client does not answer',
  vetoed: 'vetoed by canMove',
  givenBack: 'given back by the successor',
  clientDoesNotRead: 'its client does not read',
  leftToProgram: 'left to the program itself',
  // Why none moves, or none any more.
  movingIsOff: 'moving is off',
  notTaken: 'not taken by the successor',
  noRoom: 'the successor has no room for more descriptors',
  takesNoMore: 'the successor takes no more',
  outOfDescriptors: 'the successor ran out of descriptors',
  successorEnded: 'the successor ended',
  successorSentGarbage: 'the successor sent garbage',
  successorRecalled: 'the successor was recalled'
} as const

/** `text`: from an adapter (noteStay), or from the kernel where it sends no descriptors. */
export type StayReason = keyof typeof texts | { readonly text: string }

export const stayText = (reason: StayReason): string => (typeof reason === 'string' ? texts[reason] : reason.text)

/** The application may still move this connection, and may say more of why it stays. */
export const isApplications = (reason: StayReason | undefined): boolean => reason === 'upgraded' || reason === 'otherProtocol'
