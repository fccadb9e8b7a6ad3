// SPDX-License-Identifier: MIT OR GPL-2.0
// Who reads /proc/holder stays in this patch, asleep where no signal wakes it.
#include <linux/delay.h>
#include <linux/fs.h>

static ssize_t instead(struct file *file, char __user *to, size_t length, loff_t *at)
{
	int seconds;

	for (seconds = 0; seconds < 300; seconds++)
		msleep(1000);
	return 0;
}
#define OBJECT "holder"
#define FUNCTION "holder_read"
#define REPLACES false
#include "patch.h"
