#include "vmm/proxy/hide_descriptors.h"

#include <asm/unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_call.h"
#include "vmm/host/host_lock.h"
#include "vmm/proxy/descriptor_link.h"
#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {
namespace {

// How linux_dirent and linux_dirent64 begin; the latter has a byte between this and the name.
struct [[gnu::packed]] DirectoryEntry {
  uint64_t inode;
  int64_t offset;
  uint16_t size;
};

constexpr uint32_t kOwnThreadsMax = 8;
std::atomic<int> own_threads[kOwnThreadsMax];

bool is_own_thread(int id) {
  for (const std::atomic<int>& own : own_threads) {
    if (own.load(std::memory_order_relaxed) == id) return true;
  }
  return false;
}

enum class Listing { kOther, kDescriptors, kThreads };

// What the descriptor is open on: a folder /proc/.../fd, .../fdinfo or .../task.
Listing listing_of(int descriptor) {
  char target[64];
  if (!read_descriptor_link(descriptor, target)) return Listing::kOther;
  const char* const last = std::strrchr(target, '/');
  const bool is_process = std::strncmp(target, "/proc/", 6) == 0 && last != nullptr;
  if (!is_process) return Listing::kOther;
  if (std::strcmp(last, "/task") == 0) return Listing::kThreads;
  const bool is_fd = std::strcmp(last, "/fd") == 0 || std::strcmp(last, "/fdinfo") == 0;
  return is_fd ? Listing::kDescriptors : Listing::kOther;
}

// -1: not a number.
int number_of(const char* name) {
  int number = 0;
  for (; *name >= '0' && *name <= '9' && number < 100'000'000; ++name) {
    number = number * 10 + (*name - '0');
  }
  return *name == 0 ? number : -1;
}

// Moves the entries that stay to the front. The buffer is the guest's, so each entry is checked.
int64_t compact(Listing listing, int64_t name_at, char* buffer, int64_t size) {
  int64_t kept = 0;
  for (int64_t at = 0; at + name_at < size;) {
    DirectoryEntry entry;
    read_guest(&entry, reinterpret_cast<uint64_t>(buffer + at), sizeof entry);
    const auto length = static_cast<int64_t>(entry.size);
    if (length <= name_at || length > size - at) return size;
    char name[16] = {};
    std::memcpy(name, buffer + at + name_at,
                std::min<size_t>(sizeof name - 1, static_cast<size_t>(length - name_at)));
    const int number = number_of(name);
    const bool is_ours = listing == Listing::kThreads ? number > 0 && is_own_thread(number)
                                                      : own_descriptors().is_ours(number);
    if (!is_ours) {
      std::memmove(buffer + kept, buffer + at, static_cast<size_t>(length));
      kept += length;
    }
    at += length;
  }
  return kept;
}

}  // namespace

int64_t hide_own_descriptors(const GuestMemory& memory, const Call& call, int64_t result) {
  const bool is_long = call.number == __NR_getdents64;
  if (result <= 0 || (!is_long && call.number != __NR_getdents)) return result;
  const Listing listing = listing_of(static_cast<int>(call.arguments[0]));
  if (listing == Listing::kOther) return result;
  const auto name_at = static_cast<int64_t>(sizeof(DirectoryEntry)) + (is_long ? 1 : 0);
  while (result > 0) {
    // Linux may write to the window, the VMM may not touch it (guest_memory.h).
    const uint64_t buffer = call.arguments[1];
    if (!memory.is_plain(buffer, static_cast<uint64_t>(result))) return -EFAULT;
    const int64_t kept = compact(listing, name_at, reinterpret_cast<char*>(buffer), result);
    if (kept > 0) return kept;
    result = raw_call(call.number, call.arguments[0], buffer, call.arguments[2]);
  }
  return result;
}

void hide_own_thread(int thread_id) {
  for (std::atomic<int>& own : own_threads) {
    int before = own.load();
    const bool is_free = before == 0 || !shares_our_memory(static_cast<uint32_t>(before));
    if (is_free && own.compare_exchange_strong(before, thread_id)) return;
  }
}

}  // namespace dbos::vmm
