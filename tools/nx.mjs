#!/usr/bin/env node
// What `npx nx …` runs in this repository: installs what is missing, then starts Nx. Without it npx would fetch some other
// version of Nx where nothing is installed yet.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { install } from './install.mjs'

install(true)
const nx = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'node_modules', 'nx')
const { bin } = JSON.parse(readFileSync(path.join(nx, 'package.json'), 'utf8'))
const program = path.join(nx, bin.nx)
process.argv[1] = program
await import(pathToFileURL(program).href)
