// SPDX-License-Identifier: MIT OR GPL-2.0
static int instead(void)
{
	return 0;
}
#define OBJECT "holder"
#define FUNCTION "holder_wait"
#define REPLACES false
#include "patch.h"
