/** `@handover/core/fd`: passing descriptors and listeners between processes, without the rest of Handover. */

export * from './descriptor-transfer.js'
