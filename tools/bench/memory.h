// Anonymous memory for a measure, in pages of the size that it wants.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace dbos::bench {

constexpr size_t kPage = 4096;
constexpr size_t kLargePage = 2u << 20;
constexpr size_t kMiB = 1u << 20;

enum class Pages { kSmall, kLarge };

// Nothing has touched it; aligned to a large page.
class Memory {
 public:
  Memory(size_t size, Pages pages) : size_(size), reserved_(size + kLargePage) {
    base_ = mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    const auto address = reinterpret_cast<uintptr_t>(base_);
    const uintptr_t aligned = (address + kLargePage - 1) / kLargePage * kLargePage;
    data_ = static_cast<volatile char*>(base_) + (aligned - address);
    if (madvise(base_, reserved_, pages == Pages::kSmall ? MADV_NOHUGEPAGE : MADV_HUGEPAGE) != 0) {
      throw std::runtime_error("madvise refused the page size");
    }
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(base_, reserved_); }

  size_t size() const { return size_; }
  const volatile char* data() const { return data_; }

  // The first byte of each page.
  void write(size_t offset, size_t size, char value = 1) {
    for (size_t at = offset; at < offset + size; at += kPage) data_[at] = value;
  }

 private:
  size_t size_;
  size_t reserved_;
  void* base_;
  volatile char* data_;
};

}  // namespace dbos::bench
