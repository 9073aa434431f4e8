// The memory files of /proc over a whole address space.
#include "guest/syscalls/proc_memory.h"

namespace dbos {

namespace {

template <typename Visit>
void for_each_vma(AddressSpace& space, Visit visit) {
  VmaInfo info;
  for (VirtualAddress from; space.next_vma(from, &info); from = info.range.end) visit(info);
}

}  // namespace

void write_maps(ProcText& out, AddressSpace& space) {
  for_each_vma(space, [&out](const VmaInfo& vma) { format_map(out, vma); });
}

void write_smaps(ProcText& out, AddressSpace& space) {
  const LargePages large_pages = space.large_pages();
  for_each_vma(space, [&](const VmaInfo& vma) {
    format_smap(out, vma, space.usage(vma.range), large_pages);
  });
}

void write_smaps_rollup(ProcText& out, AddressSpace& space) {
  PageUsage total;
  VirtualRange range{};
  u64 locked = 0;
  for_each_vma(space, [&](const VmaInfo& vma) {
    if (range.size() == 0) range.begin = vma.range.begin;
    range.end = vma.range.end;
    const PageUsage usage = space.usage(vma.range);
    locked += locked_bytes(vma, usage);
    add_usage(total, usage);
  });
  format_smaps_rollup(out, range, total, locked);
}

MemorySums sum_up(AddressSpace& space) {
  MemorySums sums;
  for_each_vma(space, [&sums](const VmaInfo& vma) { add_to_sums(sums, vma); });
  return sums;
}

}  // namespace dbos
