/** Loaded before a program by --require or --import. */
globalThis.preloaded = [...globalThis.preloaded ?? [], [process.argv[1], process.cwd()]]
