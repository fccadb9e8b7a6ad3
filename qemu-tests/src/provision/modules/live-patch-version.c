// SPDX-License-Identifier: MIT OR GPL-2.0
#include <linux/seq_file.h>

static int instead(struct seq_file *m, void *v)
{
	seq_puts(m, "live patch of the version\n");
	return 0;
}
#define OBJECT NULL
#define FUNCTION "version_proc_show"
#define REPLACES false
#include "patch.h"
