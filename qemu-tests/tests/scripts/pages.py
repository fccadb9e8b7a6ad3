"""pages.py DUMP: what drgn finds in DUMP without debug information.

Prints the platform and the release, then for each pfn on standard input its SHA-256, or the error."""

import hashlib
import sys

import drgn

prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
print("platform", prog.platform.arch.name, prog.flags)
print("release", prog["UTS_RELEASE"].string_().decode())
print("vmcoreinfo", hashlib.sha256(prog["VMCOREINFO"].string_()).hexdigest())
for line in sys.stdin:
    pfn = int(line)
    try:
        print(pfn, hashlib.sha256(prog.read(pfn * 4096, 4096, physical=True)).hexdigest())
    except drgn.FaultError as error:
        print(pfn, error)
