// A window object: one host mapping of a file or of shared memory, at [address, address + length)
// of the window. All vmas that were split or moved from the first one, and those of snapshots,
// share it.
//
// Each vma and each host call in flight holds a reference: without one the window's address may be
// another file's as soon as the address space's lock is released. The one who drops the last
// reference does so under an address space's lock, where the host can't be called: the object goes
// on a DroppedWindows list, which unmaps it after the lock is released.
#pragma once

#include <atomic>

#include "guest/lib/result.h"
#include "guest/memory/heap.h"
#include "hypercall/observe.h"

namespace dbos {

enum class WindowKind : u8 { kFile, kSharedAnonymous, kSegment };  // kSegment: System V's

// What /proc/self/maps says about a file. The path is cut at kWindowPathMax - 1 bytes.
inline constexpr u32 kWindowPathMax = 256;
struct FileIdentity {
  u64 inode = 0;
  u32 device_major = 0;
  u32 device_minor = 0;
  u64 offset = 0;  // of the mapping's first byte in the file
  const char* path = "";
};

class WindowObject {
 public:
  WindowObject(PhysicalAddress address, u64 length, WindowKind kind, const FileIdentity& file);

  PhysicalAddress address() const { return address_; }
  u64 length() const { return length_; }
  WindowKind kind() const { return kind_; }
  const FileIdentity& file() const { return file_; }
  const char* path() const { return path_; }

  static void publish(KernelView& view);

  void add_reference() { references_.fetch_add(1, std::memory_order_relaxed); }
  // Whether it was the last one.
  [[nodiscard]] bool drop_reference() {
    const u32 before = references_.fetch_sub(1, std::memory_order_acq_rel);
    DBOS_ASSERT(before != 0);
    return before == 1;
  }
  u32 references() const { return references_.load(std::memory_order_relaxed); }

 private:
  friend class DroppedWindows;

  const PhysicalAddress address_;
  const u64 length_;
  const WindowKind kind_;
  std::atomic<u32> references_{1};
  WindowObject* next_dropped_ = nullptr;
  FileIdentity file_;
  char path_[kWindowPathMax];
};

// The object for what platform::window_map() answered, with one reference, the caller's. ENOMEM.
Result<WindowObject*> window_create(PhysicalAddress address, u64 length, WindowKind kind,
                                    const FileIdentity& file);
// Drops the caller's reference. Without locks.
void window_release(WindowObject* object);

// Keeps a window mapped for a host call that is given its address. Destroy it without locks.
class WindowReference {
 public:
  WindowReference() = default;
  ~WindowReference() {
    if (object_ != nullptr) window_release(object_);
  }
  WindowReference(const WindowReference&) = delete;
  WindowReference& operator=(const WindowReference&) = delete;

  // Once, with a lock or a reference that keeps the object.
  void hold(WindowObject& object) {
    DBOS_ASSERT(object_ == nullptr);
    object.add_reference();
    object_ = &object;
  }
  WindowObject* get() const { return object_; }

 private:
  WindowObject* object_ = nullptr;
};

// Objects whose last reference is gone. Declare it before the guard of the lock, so that it is
// destroyed, and calls the host, after the lock is released.
class DroppedWindows {
 public:
  DroppedWindows() = default;
  ~DroppedWindows();
  DroppedWindows(const DroppedWindows&) = delete;
  DroppedWindows& operator=(const DroppedWindows&) = delete;

  void drop_reference(WindowObject* object) {
    if (!object->drop_reference()) return;
    object->next_dropped_ = head_;
    head_ = object;
  }

 private:
  WindowObject* head_ = nullptr;
};

}  // namespace dbos
