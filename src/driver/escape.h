/* Who launched what slipped past the hooked functions: for the log, at level debug. */
#pragma once

#include "base/util.h"

/* Make ready to be called where nothing may be allocated. Once, before the QMD callback is in place. */
void lithos_escape_prepare(void);
/* In the QMD callback: print the calls that led here, the innermost first. Costs some 100 us; at most a few times a process. */
LITHOS_OFF_PATH void lithos_escape_say(void);
