// The vma tree, and how calls split, merge and place vmas.

#include <catch2/catch.hpp>
#include <optional>
#include <random>

#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr VirtualAddress kBase{0x1000'0000};
VirtualAddress page(u64 index) {
  return kBase + index * kPageSize;
}
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

// "0-4rw 4-6r" and so on, in pages from kBase.
std::string layout(AddressSpace& space) {
  std::string text;
  VmaInfo info;
  for (VirtualAddress at(0); space.next_vma(at, &info); at = info.range.end) {
    if (!text.empty()) text += ' ';
    text += std::to_string((info.range.begin - kBase) / kPageSize) + "-" +
            std::to_string((info.range.end - kBase) / kPageSize);
    if (info.protection.may_read()) text += 'r';
    if (info.protection.may_write()) text += 'w';
    if (info.protection.may_execute()) text += 'x';
  }
  return text;
}

}  // namespace

TEST_CASE("the vma tree finds, keeps its balance and knows its gaps") {
  std::mt19937_64 random(7);
  VmaTree tree;
  std::map<u64, u64> model;  // begin -> end
  std::vector<std::unique_ptr<Vma>> vmas;
  const auto find = [&](u64 begin) {
    return std::find_if(vmas.begin(), vmas.end(),
                        [&](const auto& vma) { return vma->begin().value() == begin; });
  };
  for (int step = 0; step < 20000; ++step) {
    const u64 begin = kPageSize * (16 + random() % 4000);
    const u64 end = begin + kPageSize * (1 + random() % 8);
    const bool is_free = tree.is_free({VirtualAddress(begin), VirtualAddress(end)});
    auto after = model.lower_bound(begin + 1);
    bool expected = after == model.end() || after->first >= end;
    if (after != model.begin() && std::prev(after)->second > begin) expected = false;
    REQUIRE(is_free == expected);
    if (is_free && model.size() < 600) {
      vmas.push_back(std::make_unique<Vma>());
      vmas.back()->range = {VirtualAddress(begin), VirtualAddress(end)};
      tree.insert(vmas.back().get());
      model[begin] = end;
    } else if (!model.empty()) {
      auto victim = model.lower_bound(begin);
      if (victim == model.end()) victim = model.begin();
      const auto found = find(victim->first);
      tree.remove(found->get());
      vmas.erase(found);
      model.erase(victim);
    }
    if (step % 100 == 0) tree.check_invariants();
    // A gap, against a search from the top.
    const u64 length = kPageSize * (1 + random() % 40);
    const u64 low = kPageSize * (10 + random() % 100);
    const u64 high = kPageSize * (3000 + random() % 1500);
    u64 top = high;
    std::optional<u64> expected_gap;
    for (auto at = model.rbegin();; ++at) {
      const u64 floor = at == model.rend() ? 0 : at->second;
      if (floor < top) {
        const u64 from = std::max(floor, low);
        if (top >= from && top - from >= length) {
          expected_gap = top - length;
          break;
        }
      }
      if (at == model.rend()) break;
      top = std::min(top, at->first);
    }
    const Result<VirtualAddress> gap =
        tree.find_gap_top_down(length, VirtualAddress(low), VirtualAddress(high));
    REQUIRE(gap.is_ok() == expected_gap.has_value());
    if (gap.is_ok()) REQUIRE(gap.value().value() == *expected_gap);
    const Result<VirtualAddress> lowest =
        tree.find_gap_bottom_up(length, VirtualAddress(low), VirtualAddress(high));
    REQUIRE(lowest.is_ok() == expected_gap.has_value());
    if (lowest.is_ok()) {
      REQUIRE(lowest.value() >= VirtualAddress(low));
      REQUIRE(tree.is_free({lowest.value(), lowest.value() + length}));
    }
  }
}

TEST_CASE("the vma tree knows how many bytes its vmas and the locked ones have") {
  VmaTree tree;
  const auto counts = [&] {
    tree.check_invariants();
    return std::pair(tree.bytes() / kPageSize, tree.locked_bytes() / kPageSize);
  };
  using Counts = std::pair<u64, u64>;
  Vma first;
  Vma second;
  first.range = {page(0), page(4)};
  second.range = {page(8), page(10)};
  second.flags = VmaFlag::kLocked | VmaFlag::kDontFork;
  tree.insert(&first);
  tree.insert(&second);
  CHECK(counts() == Counts(6, 2));
  tree.set_range(&first, {page(2), page(7)});
  tree.set_range(&second, {page(8), page(9)});
  CHECK(counts() == Counts(6, 1));
  tree.set_flags(&first, VmaFlag::kLocked);
  CHECK(counts() == Counts(6, 6));
  tree.set_flags(&second, VmaFlag::kDontFork);
  CHECK(counts() == Counts(6, 5));
  tree.remove(&first);
  CHECK(counts() == Counts(1, 0));
  tree.clear([](Vma*) {});
  CHECK(counts() == Counts(0, 0));
  first.next = &second;
  second.next = nullptr;
  tree.fill(&first, 2);
  CHECK(counts() == Counts(6, 5));
}

TEST_CASE("neighbours that are alike are one vma, and calls on a part split it") {
  Machine machine;
  AddressSpace& space = machine.new_space();
  machine.map(space, 4 * kPageSize, kReadWrite, MAP_FIXED, page(0));
  machine.map(space, 4 * kPageSize, kReadWrite, MAP_FIXED, page(8));
  CHECK(layout(space) == "0-4rw 8-12rw");
  machine.map(space, 4 * kPageSize, kReadWrite, MAP_FIXED, page(4));
  CHECK(layout(space) == "0-12rw");
  CHECK(space.protect(page(2), 3 * kPageSize, PROT_READ).is_ok());
  CHECK(layout(space) == "0-2rw 2-5r 5-12rw");
  CHECK(space.protect(page(1), kPageSize, PROT_READ).is_ok());
  CHECK(layout(space) == "0-1rw 1-5r 5-12rw");
  CHECK(space.protect(page(0), 12 * kPageSize, kReadWrite).is_ok());
  CHECK(layout(space) == "0-12rw");
  CHECK(space.unmap(page(3), 2 * kPageSize).is_ok());
  CHECK(layout(space) == "0-3rw 5-12rw");
  CHECK(space.advise(page(6), kPageSize, MADV_DONTFORK).is_ok());
  CHECK(layout(space) == "0-3rw 5-6rw 6-7rw 7-12rw");
  CHECK(space.advise(page(5), 7 * kPageSize, MADV_DOFORK).is_ok());
  CHECK(layout(space) == "0-3rw 5-12rw");
  machine.map(space, 8 * kPageSize, PROT_READ | PROT_EXEC, MAP_FIXED, page(2));
  CHECK(layout(space) == "0-2rw 2-10rx 10-12rw");
}

TEST_CASE("mappings are placed top-down below the base, hints are taken where they fit") {
  Machine machine;
  AddressSpace& space = machine.new_space();
  const VirtualAddress top(0x7000'0000'0000);
  space.set_mmap_base(top);
  const VirtualAddress first = machine.map(space, 4 * kPageSize);
  CHECK(first + 4 * kPageSize == top);
  const VirtualAddress second = machine.map(space, kPageSize, PROT_READ);
  CHECK(second + kPageSize == first);
  CHECK(space.unmap(first + kPageSize, 2 * kPageSize).is_ok());
  CHECK(machine.map(space, 3 * kPageSize) + 3 * kPageSize == second);
  CHECK(machine.map(space, 2 * kPageSize) == first + kPageSize);
  // A hint: rounded down, raised to the lowest address, ignored where it's taken.
  CHECK(machine.map(space, kPageSize, kReadWrite, 0, page(3) + 17) == page(3));
  CHECK(machine.map(space, kPageSize, kReadWrite, 0, page(3)) != page(3));
  CHECK(machine.map(space, kPageSize, kReadWrite, 0, VirtualAddress(kPageSize)) == kLowestAddress);
  const VirtualAddress low = machine.map(space, kPageSize, kReadWrite, MAP_32BIT);
  CHECK(low.value() < 0x8000'0000);
  // When nothing is left below the base: from a third of the address space on, upwards.
  space.set_mmap_base(VirtualAddress(0x20000));
  CHECK(machine.map(space, kGiB) == VirtualAddress(0x2aaa'aaaa'a000));
}

TEST_CASE("a new mapping keeps the guard gap below a stack") {
  Machine machine;
  AddressSpace& space = machine.new_space();
  const VirtualAddress top(0x7000'0000'0000);
  space.set_mmap_base(top);
  machine.map(space, 4 * kPageSize, kReadWrite, MAP_FIXED | MAP_GROWSDOWN,
              VirtualAddress(top.value() - 16 * kPageSize));
  const VirtualAddress at = machine.map(space, 13 * kPageSize);
  CHECK(at + 13 * kPageSize == VirtualAddress(top.value() - 16 * kPageSize - kStackGuardGap));
  CHECK(machine.map(space, kPageSize) + kPageSize == top);
}

TEST_CASE("there are no more than 65530 vmas") {
  Machine machine;
  AddressSpace& space = machine.new_space();
  machine.map(space, 2 * 70000 * kPageSize, PROT_NONE, MAP_FIXED, page(0));
  u64 index = 1;
  Result<void> result;
  while (true) {
    result = space.protect(page(index), kPageSize, PROT_READ);
    if (result.is_error()) break;
    index += 2;
  }
  CHECK(result.error() == Error(ENOMEM));
  CHECK(space.statistics().vma_count == memory_options().vma_count_max - 1);
  CHECK(space.unmap(page(index), kPageSize).is_ok());
  CHECK(space.unmap(page(index + 3), kPageSize).error() == Error(ENOMEM));
  CHECK(space.advise(page(index + 3), kPageSize, MADV_DONTFORK).error() == Error(EAGAIN));
  space.check_invariants();
  CHECK(space.unmap(page(0), 2 * 70000 * kPageSize).is_ok());
}

}  // namespace dbos::test
