// SPDX-License-Identifier: MIT OR GPL-2.0
// Who reads /proc/holder stays in holder_wait(), asleep where no signal wakes it, until somebody writes there.
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/proc_fs.h>

static bool released;

static noinline int holder_wait(void)
{
	int seconds;

	for (seconds = 0; seconds < 300 && !READ_ONCE(released); seconds++)
		msleep(1000);
	return 0;
}

static ssize_t holder_read(struct file *file, char __user *to, size_t length, loff_t *at)
{
	return holder_wait();
}

static ssize_t holder_write(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	WRITE_ONCE(released, true);
	return length;
}

static const struct proc_ops operations = {
	.proc_read = holder_read,
	.proc_write = holder_write,
};

static int __init holder_init(void)
{
	return proc_create("holder", 0600, NULL, &operations) ? 0 : -ENOMEM;
}

static void __exit holder_exit(void)
{
	remove_proc_entry("holder", NULL);
}
module_init(holder_init);
module_exit(holder_exit);
MODULE_LICENSE("Dual MIT/GPL");
