#!/usr/bin/env node
// npm links a bin only where its file exists: in a fresh clone that is before dist is built.
require('../dist/bundle/main.js')
