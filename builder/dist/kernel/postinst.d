#!/bin/sh
# Debian's kernel packages call this with their release.
[ -x /usr/lib/kdump/kernel-changed ] || exit 0
/usr/lib/kdump/kernel-changed boots "$1"
exec /usr/lib/kdump/kernel-changed add "$1"
