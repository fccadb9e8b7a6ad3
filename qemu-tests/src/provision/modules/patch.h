// SPDX-License-Identifier: MIT OR GPL-2.0
// A live patch of one function. Whoever includes this says which (OBJECT, FUNCTION), gives `instead`, and says whether
// the patch takes the place of all others (REPLACES).
#include <linux/livepatch.h>
#include <linux/module.h>

static struct klp_func functions[] = {
	{ .old_name = FUNCTION, .new_func = instead },
	{ }
};

static struct klp_object objects[] = {
	{ .name = OBJECT, .funcs = functions },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
	.replace = REPLACES,
};

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}
module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
