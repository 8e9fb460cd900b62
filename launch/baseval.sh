#!/usr/bin/env bash
exec bash "$(dirname "$0")/eval.sh" base "$@"      # described there
