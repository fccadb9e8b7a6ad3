// SPDX-License-Identifier: MIT OR GPL-2.0
#include <linux/panic.h>
#include <linux/seq_file.h>

static int instead(struct seq_file *m, void *v)
{
	panic("a live patch that no boot survives");
}
#define OBJECT NULL
#define FUNCTION "meminfo_proc_show"
#define REPLACES false
#include "patch.h"
