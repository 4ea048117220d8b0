/* Stepping between a loaded library and a function that it imports. */
#pragma once

/* Have every import of `name` in the library of `handle` (of dlopen) lead to `with`. ret_before: where it led, the same for all.
 * Calls of other libraries and of the program are not touched. 0; -ENOENT: it does not import that; -EBUSY: its imports of that
 * name lead to different places; other negative errno: its tables cannot be read or written, and nothing was changed. */
int lithos_import_replace(void *handle, const char *name, void *with, void **ret_before);
