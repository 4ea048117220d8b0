/* CUDA_VISIBLE_DEVICES. */
#pragma once

struct vgpu_device;

/* Keep and order devices as the list says (indices, or UUIDs "GPU-…" that may be cut short); the list ends at the
 * first entry that names none, as the real driver's does. NULL: all. Returns how many are left. */
unsigned vgpu_visible(const char *list, struct vgpu_device *devices, unsigned count);
/* "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" */
void vgpu_uuid_format(const unsigned char uuid[16], char text[41]);
