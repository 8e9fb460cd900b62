#!/usr/bin/env bash
exec bash "$(dirname "$0")/eval.sh" pose "$@"      # described there
