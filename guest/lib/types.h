// Strong types of the guest kernel: an address of one kind cannot be taken for one of another.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

#include "hypercall/layout.h"

namespace dbos {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i32 = int32_t;
using i64 = int64_t;

// A byte of guest-physical memory, which is also its address in the VMM's process.
class PhysicalAddress {
 public:
  constexpr PhysicalAddress() = default;
  constexpr explicit PhysicalAddress(u64 value) : value_(value) {}
  constexpr u64 value() const { return value_; }
  constexpr PhysicalAddress operator+(u64 bytes) const { return PhysicalAddress(value_ + bytes); }
  constexpr u64 operator-(PhysicalAddress other) const { return value_ - other.value_; }
  constexpr auto operator<=>(const PhysicalAddress&) const = default;
  constexpr bool is_null() const { return value_ == 0; }

 private:
  u64 value_ = 0;
};

// A byte of a program's or the kernel's address space.
class VirtualAddress {
 public:
  constexpr VirtualAddress() = default;
  constexpr explicit VirtualAddress(u64 value) : value_(value) {}
  constexpr u64 value() const { return value_; }
  constexpr VirtualAddress operator+(u64 bytes) const { return VirtualAddress(value_ + bytes); }
  constexpr u64 operator-(VirtualAddress other) const { return value_ - other.value_; }
  constexpr auto operator<=>(const VirtualAddress&) const = default;

 private:
  u64 value_ = 0;
};

// [begin, end) of an address space.
struct VirtualRange {
  VirtualAddress begin;
  VirtualAddress end;
  constexpr u64 size() const { return end - begin; }
  constexpr bool contains(VirtualAddress a) const { return begin <= a && a < end; }
  constexpr bool contains(VirtualRange o) const { return begin <= o.begin && o.end <= end; }
  constexpr bool overlaps(VirtualRange o) const { return begin < o.end && o.begin < end; }
  // Has nothing between its begin and its end where the two do not overlap.
  constexpr VirtualRange intersect(VirtualRange o) const {
    return {begin < o.begin ? o.begin : begin, end < o.end ? end : o.end};
  }
  constexpr bool operator==(const VirtualRange&) const = default;
};

// Whether it lies in the program's part of an address space.
constexpr bool is_program_range(VirtualAddress begin, u64 size) {
  return begin.value() <= kProgramEnd && size <= kProgramEnd - begin.value();
}

}  // namespace dbos
