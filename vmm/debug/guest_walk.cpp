#include "vmm/debug/guest_walk.h"

#include <asm/unistd.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "hypercall/layout.h"
#include "vmm/host/host_call.h"
#include "vmm/observe/page_walk.h"

namespace dbos::vmm {
namespace {

// Bytes copied. Linux makes the access in the window, because files are mapped there: a page may be
// past the end of one.
size_t copy_physical(const GuestMemory& memory, void* destination, uint64_t address, size_t size) {
  if (memory.is_plain(address, size)) {
    std::memcpy(destination, reinterpret_cast<const void*>(address), size);
    return size;
  }
  if (!memory.contains(address, size)) return 0;
  iovec to = {destination, size};
  iovec from = {reinterpret_cast<void*>(address), size};
  const uint32_t self = own_thread_id();  // the process's first thread may have ended
  const int64_t done = raw_call(__NR_process_vm_readv, self, reinterpret_cast<uint64_t>(&to), 1,
                                reinterpret_cast<uint64_t>(&from), 1);
  return done < 0 ? 0 : static_cast<size_t>(done);
}

}  // namespace

size_t read_virtual(const GuestMemory& memory, uint64_t root, uint64_t address, void* destination,
                    size_t size) {
  size_t done = 0;
  while (done < size) {
    const PageWalk found = walk_page_table(memory, root, address + done);
    if (!found.is_mapped) return done;
    const size_t part = std::min<size_t>(size - done, kPageSize - (address + done) % kPageSize);
    const size_t copied =
        copy_physical(memory, static_cast<char*>(destination) + done, found.physical, part);
    done += copied;
    if (copied < part) return done;
  }
  return done;
}

}  // namespace dbos::vmm
