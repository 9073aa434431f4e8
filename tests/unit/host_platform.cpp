#include "tests/unit/host_platform.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

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
constexpr u64 kWindowReserved = 64 * kGiB;
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

void abort_because(const char* what) {
  std::perror(what);
  std::abort();
}

void map_at(void* wanted, u64 length, int protection, int flags, int file) {
  if (mmap(wanted, length, protection, flags | MAP_NORESERVE, file, 0) != wanted) {
    abort_because("host platform: mmap");
  }
}

// Its addresses may be taken.
void reserve(u64 address, u64 length, int protection) {
  map_at(platform::direct_map(PhysicalAddress(address)), length, protection,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1);
}

// With the windows' mutex, as the two below. Addresses are never used again.
PhysicalAddress add_window(u64 length, u64 file_length) {
  const PhysicalAddress at(next_window);
  next_window += length + kPageSize;
  if (next_window > kWindowBase + kWindowReserved) abort_because("host platform: too many windows");
  windows[at.value()] = {length, file_length};
  return at;
}

// The one that the address is in.
std::map<u64, Window>::iterator find_window(PhysicalAddress address) {
  const auto after = windows.upper_bound(address.value());
  if (after == windows.begin()) return windows.end();
  const auto found = std::prev(after);
  return address.value() - found->first < found->second.length ? found : windows.end();
}

// With a file of its own, so that its memory can be mapped once more.
void back_window(PhysicalAddress at, u64 length, u64 file_length) {
  const u64 size = align_up(length < file_length ? file_length : length, kPageSize);
  const int file = memfd_create("window", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(size)) != 0) {
    abort_because("host platform: a window's file");
  }
  map_at(platform::direct_map(at), length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file);
  close(file);
}

}  // namespace

namespace host {

std::function<void(AddressSpace&, VirtualRange)> on_shootdown;
thread_local bool is_dying = false;
std::function<void(VirtualAddress)> on_flush_local;
std::function<void(PhysicalAddress)> on_populate;
std::function<void()> on_arena_grow;
std::function<bool()> on_no_memory;
std::function<void(u64, u32)> on_copy_limit;

void start(u64 arena_bytes) {
  static bool started = false;
  if (!started) {
    const u64 arena = arena_bytes < kArenaReserved ? kArenaReserved : arena_bytes;
    reserve(kArenaBase, arena, PROT_READ | PROT_WRITE);
    reserve(kWindowBase, kWindowReserved, PROT_NONE);
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
  length = align_up(length, kPageSize);
  const PhysicalAddress at = add_window(length, file_length);
  back_window(at, length, file_length);
  return at;
}

PhysicalAddress duplicate_window(PhysicalAddress address, u64 length) {
  const std::lock_guard guard(windows_mutex);
  const auto original = find_window(address);
  if (original == windows.end()) abort_because("host platform: no such window");
  const u64 offset = address.value() - original->first;
  const u64 file_length = original->second.file_length;
  const PhysicalAddress at = add_window(length, file_length < offset ? 0 : file_length - offset);
  void* const wanted = platform::direct_map(at);
  // An old size of 0 makes a second mapping (mremap(2)).
  if (mremap(platform::direct_map(address), 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, wanted) !=
      wanted) {
    abort_because("host platform: mremap");
  }
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
  return find_window(address) != windows.end();
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

bool make_room(u64) {
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
  const auto found = find_window(begin);
  if (found == windows.end()) return false;
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
  // Whoever still uses it is ended by SIGSEGV.
  map_at(direct_map(begin), length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
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
void Wait::turn() {
  sched_yield();
}
void pause() {
  sched_yield();
}

bool is_dying() {
  return host::is_dying;
}

u32 current_vcpu() {
  return this_vcpu;
}

VcpuCounters& counters() {
  return this_counters;
}

}  // namespace platform
}  // namespace dbos
