#!/usr/bin/env node
/** The command `handover`. */

export {}
