/** Marks a successor: the descriptors of its end of the channel. Removed before any code of the program runs. */
export const successorMark = 'HANDOVER_SUCCESSOR'

/** Marks a worker: the descriptors of its line to the keeper, and its slot. */
export const keeperMark = 'HANDOVER_KEEPER'
