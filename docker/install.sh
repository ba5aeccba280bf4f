#!/bin/sh
# Installs the packages that run, as they are locked, without those of the engines that are named; and without type
# declarations, source maps and links into this repository.
set -e
for engine in "$@"; do
  rm -r "libs/engine-$engine"
  npm pkg delete --workspaces "dependencies.@convoy/engine-$engine"
done
npm install --omit=dev --workspace=@convoy/cli
rm -rf node_modules/@convoy node_modules/.package-lock.json
find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.cts' -o -name '*.d.mts' \) -delete
