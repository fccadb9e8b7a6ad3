// SPDX-License-Identifier: MIT OR GPL-2.0
// A driver that never ends starting.
#include <linux/delay.h>
#include <linux/module.h>

static int __init hang_init(void)
{
	for (;;)
		msleep(1000);
	return 0;
}
module_init(hang_init);
MODULE_LICENSE("Dual MIT/GPL");
