// Files of the program as window objects.
#pragma once

#include "guest/lib/result.h"
#include "guest/memory/window_object.h"

namespace dbos {

// "/proc/thread-self/fd/N", which names what a descriptor is open for.
inline constexpr u64 kDescriptorLinkSize = 32;
void write_descriptor_link(char (&link)[kDescriptorLinkSize], i32 descriptor);

struct FileMapping {
  WindowObject* object;  // with one reference, the caller's
  bool may_write;        // a shared mapping that Linux lets be written
  bool may_execute;      // its file system is not mounted with noexec
};

enum class FileUse : u8 { kPrivate, kShared, kSharedToWrite };

// Maps `length` bytes from the page-aligned `offset` of an open file on the host and describes it.
// `path` nullptr: Linux is asked for it. The errno is mmap's.
Result<FileMapping> map_file(i32 descriptor, u64 offset, u64 length, FileUse use,
                             const char* path = nullptr);

// A mapping of what `window`, which the caller holds, shows from `offset` on, of at least `length`
// bytes, for one that grows. A file's is longer, so that the next growth seldom needs another one.
Result<FileMapping> map_longer(const WindowObject& window, u64 offset, u64 length);

// A System V shared memory segment, whole. `flags`: SHM_RDONLY, SHM_EXEC. The errno is shmat's.
Result<FileMapping> attach_segment(i32 identifier, int flags);

// Memory that the program shares with its children (MAP_SHARED | MAP_ANONYMOUS). `flags`: 0 or
// MAP_NORESERVE.
Result<FileMapping> map_shared_memory(u64 length, int flags);

}  // namespace dbos
