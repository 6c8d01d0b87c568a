#pragma once

#include <string>

namespace volley {

// Waits until the bytes written through `descriptor` lie on the disk, with what it takes to read them back;
// times and rights may follow. 0, or the errno of what the disk refused; a file system that cannot sync is no
// fault. Ref: POSIX, fdatasync.
[[nodiscard]] int sync_bytes(int descriptor);

// Waits until the names in the folder of `path` lie on the disk, where folders can be synced. Never fails:
// without it a power cut leaves the folder as it was before or after the last changes.
void sync_folder_of(const std::string& path);

}  // namespace volley
