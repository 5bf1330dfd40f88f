// What move.mjs is to do: SETTINGS, and over it NEXT in every generation after the first. Read before @handover/core, which takes its mark of a
// successor out of the environment.
const { SETTINGS = '{}', NEXT = '{}', HANDOVER_SUCCESSOR } = process.env

export const settings = { kind: 'http', listen: ['127.0.0.1:0'], options: {}, server: {}, ...JSON.parse(SETTINGS), ...(HANDOVER_SUCCESSOR && JSON.parse(NEXT)) }
