/* Files and folders. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Make a folder and those above it, mode for those made. 0 (also when it stands already) or negative errno. */
int lithos_mkdir_p(const char *path, mode_t mode);
/* Whole file as a NUL-ended string owned by the caller (free). -EFBIG above max_bytes, else negative errno of what failed. */
int lithos_read_file(const char *path, size_t max_bytes, char **ret_text, size_t *ret_len);
/* Write to a temporary file beside it, fsync, rename: readers see the old content or the new, also when the disk
 * is full. Negative errno of the first step that failed; the old file then stands untouched. */
int lithos_write_file_atomic(const char *path, const void *data, size_t len, mode_t mode);
/* Folder of the running program, without a slash at the end, into buf. 0 or negative errno (-ENAMETOOLONG). */
int lithos_program_dir(char *buf, size_t size);
