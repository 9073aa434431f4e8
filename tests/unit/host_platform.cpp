#include "tests/unit/host_platform.h"

#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "guest/lib/assert.h"
#include "guest/platform.h"

namespace dbos {
namespace {

// The kernel's pointers are physical addresses plus this, as in the kernel itself they are never
// the same. The offset is so that AddressSanitizer's shadow lies elsewhere; ThreadSanitizer has
// room for the arena only where it is.
#ifdef __SANITIZE_THREAD__
#define DBOS_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DBOS_THREAD_SANITIZER 1
#endif
#endif
#ifdef DBOS_THREAD_SANITIZER
constexpr u64 kDirectMapOffset = 0;
#else
constexpr u64 kDirectMapOffset = 0x2000'0000'0000;
#endif

// Tests raise the limit later on, up to this; a first start() may ask for more.
constexpr u64 kArenaReserved = 16 * kGiB;
u64 arena_limit = 0;
std::atomic<u64> released{0};
std::atomic<u64> populated{0};
bool panic_throws = false;
bool releases_fail = false;
thread_local u32 this_vcpu = 0;
thread_local VcpuCounters this_counters = {};

struct Window {
  u64 length;
  u64 file_length;
};
std::mutex windows_mutex;
std::map<u64, Window> windows;
u64 next_window = kWindowBase;

void reserve(u64 address, u64 length) {
  void* wanted = platform::direct_map(PhysicalAddress(address));
  void* at = mmap(wanted, length, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (at != wanted) {
    std::perror("host platform: the arena's addresses are taken");
    std::abort();
  }
}

}  // namespace

namespace host {

std::function<void(AddressSpace&, VirtualRange)> on_shootdown;
std::function<void(VirtualAddress)> on_flush_local;
std::function<void(PhysicalAddress)> on_populate;
std::function<void()> on_arena_grow;
std::function<bool()> on_no_memory;
std::function<void(u64, u32)> on_copy_limit;

void start(u64 arena_bytes) {
  static bool started = false;
  if (!started) {
    reserve(kArenaBase, arena_bytes < kArenaReserved ? kArenaReserved : arena_bytes);
    reserve(kWindowBase, 4 * kGiB);
    started = true;
  }
  arena_limit = arena_bytes;
}

void set_arena_limit(u64 arena_bytes) {
  arena_limit = arena_bytes;
}
void set_vcpu(u32 vcpu) {
  this_vcpu = vcpu;
}

PhysicalAddress make_window(u64 length, u64 file_length) {
  const std::lock_guard guard(windows_mutex);
  const PhysicalAddress at(next_window);
  next_window += align_up(length, kPageSize) + kPageSize;
  windows[at.value()] = {align_up(length, kPageSize), file_length};
  return at;
}

void cut_window(PhysicalAddress window, u64 file_length) {
  const std::lock_guard guard(windows_mutex);
  windows.at(window.value()).file_length = file_length;
}

u64 open_windows() {
  const std::lock_guard guard(windows_mutex);
  return windows.size();
}
bool is_window(PhysicalAddress address) {
  const std::lock_guard guard(windows_mutex);
  const auto after = windows.upper_bound(address.value());
  if (after == windows.begin()) return false;
  const auto found = std::prev(after);
  return address.value() - found->first < found->second.length;
}
u64 populate_calls() {
  return populated;
}
u64 released_bytes() {
  return released;
}
void fail_releases(bool on) {
  releases_fail = on;
}
void throw_on_panic(bool on) {
  panic_throws = on;
}

}  // namespace host

void panic(const char* message, const char* file, int line) {
  if (panic_throws) {
    throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + message);
  }
  std::fprintf(stderr, "%s:%d: %s\n", file, line, message);
  std::abort();
}

namespace platform {

void* direct_map(PhysicalAddress address) {
  return reinterpret_cast<void*>(address.value() + kDirectMapOffset);
}

PhysicalAddress physical_of(const void* direct_map_pointer) {
  return PhysicalAddress(reinterpret_cast<u64>(direct_map_pointer) - kDirectMapOffset);
}

Result<u64> arena_grow(u64 index) {
  if (host::on_arena_grow) host::on_arena_grow();
  const u64 begin = index * kArenaChunkSize;
  if (begin >= arena_limit) return Error(ENOMEM);
  const u64 left = arena_limit - begin;
  return left < kArenaChunkSize ? left : kArenaChunkSize;
}

Result<void> memory_release(PhysicalAddress begin, u64 bytes) {
  if (releases_fail) return Error(EAGAIN);
  madvise(direct_map(begin), bytes, MADV_DONTNEED);
  released += bytes;
  return {};
}

void shootdown(AddressSpace& space, VirtualRange range) {
  if (host::on_shootdown) host::on_shootdown(space, range);
}

void flush_local(VirtualAddress address) {
  if (host::on_flush_local) host::on_flush_local(address);
}

bool make_room() {
  return host::on_no_memory && host::on_no_memory();
}

void limit_copies(u64 kept, u32 copied_pages) {
  if (host::on_copy_limit) host::on_copy_limit(kept, copied_pages);
}

Result<PhysicalAddress> window_map(int, u64, u64 length, int, int) {
  return host::make_window(length, length);
}

namespace {

// Whether the file behind a window reaches that far.
bool is_window_backed(PhysicalAddress begin, u64 length) {
  const std::lock_guard guard(windows_mutex);
  auto found = windows.upper_bound(begin.value());
  if (found == windows.begin()) return false;
  --found;
  const u64 end = begin.value() + length - found->first;
  return end <= align_up(found->second.file_length, kPageSize);
}

}  // namespace

void window_unmap(PhysicalAddress begin, u64 length) {
  const std::lock_guard guard(windows_mutex);
  const auto found = windows.find(begin.value());
  if (found == windows.end() || found->second.length != length) {
    panic("a window that is not there was unmapped", __FILE__, __LINE__);
  }
  windows.erase(found);
  // Whoever still uses it reads this.
  std::memset(direct_map(begin), 0xdd, length);
}

Result<void> copy_window_page(PhysicalAddress frame, PhysicalAddress window_page) {
  if (!is_window_backed(window_page, kPageSize)) return Error(EFAULT);
  std::memcpy(direct_map(frame), direct_map(window_page), kPageSize);
  return {};
}

Result<void> window_populate(PhysicalAddress begin, u64 length, bool) {
  ++populated;
  if (host::on_populate) host::on_populate(begin);
  if (!is_window_backed(begin, length)) return Error(EFAULT);
  return {};
}
void relax(u32) {
  sched_yield();
}

u32 current_vcpu() {
  return this_vcpu;
}

VcpuCounters& counters() {
  return this_counters;
}

}  // namespace platform
}  // namespace dbos
