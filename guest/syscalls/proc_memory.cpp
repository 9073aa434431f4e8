#include "guest/syscalls/proc_memory.h"

namespace dbos {

namespace {

constexpr u32 kNameColumn = 72;

const char* name_of(const VmaInfo& vma) {
  if (vma.name != VmaName::kNone) return text_of(vma.name);
  return vma.kind == VmaKind::kAnonymous ? "" : vma.path;
}

void put_path(ProcText& out, const char* path) {
  for (; *path != 0; ++path) {
    if (*path == '\n') {
      out.text("\\012");
    } else {
      out.put(*path);
    }
  }
}

struct Prefix {
  VirtualRange range;
  Protection protection;
  bool is_shared;
  u64 offset;
  u32 device_major;
  u32 device_minor;
  u64 inode;
};
void put_prefix(ProcText& out, const Prefix& prefix) {
  out.hexadecimal(prefix.range.begin.value(), 8).put('-');
  out.hexadecimal(prefix.range.end.value(), 8).put(' ');
  out.put(prefix.protection.may_read() ? 'r' : '-');
  out.put(prefix.protection.may_write() ? 'w' : '-');
  out.put(prefix.protection.may_execute() ? 'x' : '-');
  out.put(prefix.is_shared ? 's' : 'p').put(' ');
  out.hexadecimal(prefix.offset, 8).put(' ');
  out.hexadecimal(prefix.device_major, 2).put(':').hexadecimal(prefix.device_minor, 2).put(' ');
  out.decimal(prefix.inode).put(' ');
}

// A shared page is charged to its users in equal parts; a frame's users are not counted here, and
// two (a process and its snapshot) is what they nearly always are.
u64 proportional(u64 own_pages, u64 shared_pages) {
  return (own_pages + shared_pages / 2) * kPageSize;
}
u64 bytes_of(u64 pages) {
  return pages * kPageSize;
}

struct Shares {
  u64 total;
  u64 dirty;
  u64 anonymous;
};
Shares shares_of(const PageUsage& usage) {
  const u64 total = proportional(usage.private_clean + usage.private_dirty,
                                 usage.shared_clean + usage.shared_dirty);
  const u64 anonymous =
      usage.present == 0 ? 0 : total / kPageSize * usage.anonymous / usage.present;
  return {total, proportional(usage.private_dirty, usage.shared_dirty), bytes_of(anonymous)};
}

enum class Part { kVma, kRollup };
void put_usage(ProcText& out, const PageUsage& usage, u64 locked_bytes, Part part) {
  const Shares shares = shares_of(usage);
  out.kib("Rss:            ", bytes_of(usage.present));
  out.kib(" kB\nPss:            ", shares.total);
  out.kib(" kB\nPss_Dirty:      ", shares.dirty);
  if (part == Part::kRollup) {
    out.kib(" kB\nPss_Anon:       ", shares.anonymous);
    out.kib(" kB\nPss_File:       ", shares.total - shares.anonymous);
    out.kib(" kB\nPss_Shmem:      ", 0);
  }
  out.kib(" kB\nShared_Clean:   ", bytes_of(usage.shared_clean));
  out.kib(" kB\nShared_Dirty:   ", bytes_of(usage.shared_dirty));
  out.kib(" kB\nPrivate_Clean:  ", bytes_of(usage.private_clean));
  out.kib(" kB\nPrivate_Dirty:  ", bytes_of(usage.private_dirty));
  out.kib(" kB\nReferenced:     ", bytes_of(usage.accessed));
  out.kib(" kB\nAnonymous:      ", bytes_of(usage.anonymous));
  out.kib(" kB\nLazyFree:       ", 0);
  out.kib(" kB\nAnonHugePages:  ", bytes_of(usage.large));
  out.kib(" kB\nShmemPmdMapped: ", 0);
  out.kib(" kB\nFilePmdMapped:  ", 0);
  out.kib(" kB\nShared_Hugetlb: ", 0);
  out.kib(" kB\nPrivate_Hugetlb: ", 0, 7);
  out.kib(" kB\nSwap:           ", 0);
  out.kib(" kB\nSwapPss:        ", 0);
  out.kib(" kB\nLocked:         ", locked_bytes);
  out.text(" kB\n");
}

// The vDSO's pages are shared by all processes, but Linux shows them as private.
bool is_shared(const VmaInfo& vma) {
  return vma.kind == VmaKind::kWindowShared && vma.path[0] != '[';
}

// In the order of the flags' bits (include/linux/mm.h).
void put_vma_flags(ProcText& out, const VmaInfo& vma) {
  const VmaFlags flags = vma.flags;
  const auto put_if = [&out](bool is_set, const char* mnemonic) {
    if (is_set) out.text(mnemonic).put(' ');
  };
  const bool may_write = !flags.has(VmaFlag::kMayNotWrite);
  out.text("VmFlags: ");
  put_if(vma.protection.may_read(), "rd");
  put_if(vma.protection.may_write(), "wr");
  put_if(vma.protection.may_execute(), "ex");
  put_if(is_shared(vma) && may_write, "sh");
  put_if(true, "mr");
  put_if(may_write, "mw");
  put_if(!flags.has(VmaFlag::kMayNotExecute), "me");
  put_if(is_shared(vma), "ms");
  put_if(flags.has(VmaFlag::kGrowsDown), "gd");
  put_if(flags.has(VmaFlag::kLocked), "lo");
  put_if(flags.has(VmaFlag::kSequential), "sr");
  put_if(flags.has(VmaFlag::kRandom), "rr");
  put_if(flags.has(VmaFlag::kDontFork), "dc");
  put_if(vma.name == VmaName::kVdso || vma.name == VmaName::kVvar, "de");
  put_if(flags.has(VmaFlag::kLockOnFault), "lf");
  put_if(vma.protection.may_write() && !is_shared(vma) && !flags.has(VmaFlag::kNoReserve), "ac");
  put_if(flags.has(VmaFlag::kNoReserve), "nr");
  put_if(flags.has(VmaFlag::kWipeOnFork), "wf");
  put_if(flags.has(VmaFlag::kDontDump), "dd");
  put_if(flags.has(VmaFlag::kHugePage), "hg");
  put_if(flags.has(VmaFlag::kNoHugePage), "nh");
  out.put('\n');
}

}  // namespace

void format_map(ProcText& out, const VmaInfo& vma) {
  Prefix prefix{vma.range, vma.protection, is_shared(vma), 0, 0, 0, 0};
  if (vma.kind != VmaKind::kAnonymous) {
    prefix.offset = vma.file.offset;
    prefix.device_major = vma.file.device_major;
    prefix.device_minor = vma.file.device_minor;
    prefix.inode = vma.file.inode;
  }
  put_prefix(out, prefix);
  const char* const name = name_of(vma);
  if (*name != 0) {
    out.pad_to(kNameColumn);
    put_path(out, name);
  }
  out.put('\n');
}

void format_smap(ProcText& out, const VmaInfo& vma, const PageUsage& usage,
                 LargePages large_pages) {
  format_map(out, vma);
  out.kib("Size:           ", vma.range.size());
  out.kib(" kB\nKernelPageSize: ", kPageSize);
  out.kib(" kB\nMMUPageSize:    ", kPageSize);
  out.text(" kB\n");
  put_usage(out, usage, locked_bytes(vma, usage), Part::kVma);
  const bool is_asked_for = large_pages == LargePages::kYes && memory_options().large_pages;
  const bool may_be_large = is_asked_for && vma.kind == VmaKind::kAnonymous &&
                            vma.range.size() >= kLargePageSize &&
                            !vma.flags.has(VmaFlag::kNoHugePage);
  out.text("THPeligible:    ").put(may_be_large ? '1' : '0').put('\n');
  put_vma_flags(out, vma);
}

void format_smaps_rollup(ProcText& out, VirtualRange range, const PageUsage& total,
                         u64 locked_bytes) {
  put_prefix(out, Prefix{range, Protection(), false, 0, 0, 0, 0});
  out.pad_to(kNameColumn).text("[rollup]\n");
  put_usage(out, total, locked_bytes, Part::kRollup);
}

void format_statm(ProcText& out, const SpaceStatistics& space, const MemorySums& sums,
                  const ProcessFacts& facts) {
  const u64 resident = space.resident_anonymous_bytes + space.resident_window_bytes;
  out.decimal(space.virtual_bytes / kPageSize).put(' ');
  out.decimal(resident / kPageSize).put(' ');
  out.decimal(space.resident_window_bytes / kPageSize).put(' ');
  out.decimal(align_up(facts.code_size, kPageSize) / kPageSize).text(" 0 ");
  out.decimal((sums.data + sums.stack) / kPageSize).text(" 0\n");
}

void add_usage(PageUsage& sum, const PageUsage& usage) {
  sum.present += usage.present;
  sum.writable += usage.writable;
  sum.dirty += usage.dirty;
  sum.accessed += usage.accessed;
  sum.private_clean += usage.private_clean;
  sum.private_dirty += usage.private_dirty;
  sum.shared_clean += usage.shared_clean;
  sum.shared_dirty += usage.shared_dirty;
  sum.large += usage.large;
  sum.anonymous += usage.anonymous;
}

u64 locked_bytes(const VmaInfo& vma, const PageUsage& usage) {
  return vma.flags.has(VmaFlag::kLocked) ? shares_of(usage).total : 0;
}

void add_to_sums(MemorySums& sums, const VmaInfo& vma) {
  const u64 size = vma.range.size();
  if (vma.flags.has(VmaFlag::kGrowsDown) || vma.name == VmaName::kStack) {
    sums.stack += size;
  } else if (vma.protection.may_write()) {
    if (!is_shared(vma)) sums.data += size;
  } else if (vma.protection.may_execute()) {
    sums.executable += size;
  }
}

}  // namespace dbos
