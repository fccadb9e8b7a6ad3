"""tasks.py DUMP VMLINUX: what drgn finds in DUMP with the kernel's debug information.

Prints the trace of the task that panicked, and the name of every task."""

import sys

import drgn
from drgn.helpers.linux.pid import for_each_task

prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
print("panicked:", prog.crashed_thread().object.comm.string_().decode())
print(prog.crashed_thread().stack_trace())
for task in for_each_task(prog):
    print("task:", task.comm.string_().decode())
