// The files of /proc that the guest writes, against Linux's format.
#include "guest/syscalls/proc_files.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>
#include <string>

#include "guest/syscalls/proc_memory.h"
#include "guest/syscalls/proc_status.h"

namespace dbos {
namespace {

std::string text_of(const ProcText& text) {
  std::string all;
  text.for_each_piece([&all](const char* data, u64 size) { all.append(data, size); });
  return all;
}

VmaInfo anonymous(u64 begin, u64 end, int protection = 3) {
  VmaInfo vma{};
  vma.range = {VirtualAddress(begin), VirtualAddress(end)};
  vma.protection = Protection(protection);
  vma.kind = VmaKind::kAnonymous;
  return vma;
}

VmaInfo file(u64 begin, u64 end, int protection, VmaKind kind, const char* path) {
  VmaInfo vma = anonymous(begin, end, protection);
  vma.kind = kind;
  vma.file.inode = 247134;
  vma.file.device_major = 0xfe;
  vma.file.offset = 0x2000;
  std::snprintf(vma.path, sizeof vma.path, "%s", path);
  return vma;
}

std::string map_line(const VmaInfo& vma) {
  ProcText out;
  format_map(out, vma);
  return text_of(out);
}

// The first words of the lines: what a parser goes by.
std::string labels(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  std::string all;
  while (std::getline(lines, line)) all += line.substr(0, line.find(':')) + '\n';
  return all;
}

std::string host_file(const char* path) {
  std::ifstream in(path);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

std::string line_of(const std::string& text, const std::string& key) {
  const size_t begin = text.find("\n" + key) + 1;
  return text.substr(begin, text.find('\n', begin) - begin);
}

SpaceStatistics statistics() {
  SpaceStatistics space{};
  space.virtual_bytes = 3060 * kKiB;
  space.virtual_bytes_peak = 4000 * kKiB;
  space.resident_anonymous_bytes = 116 * kKiB;
  space.resident_window_bytes = 1640 * kKiB;
  space.resident_bytes_peak = 1800 * kKiB;
  space.table_bytes = 52 * kKiB;
  space.faults = 106;
  return space;
}

}  // namespace

TEST_CASE("lines of maps are Linux's, to the column") {
  CHECK(
      map_line(file(0x55691f457000, 0x55691f45c000, 5, VmaKind::kWindowPrivate, "/usr/bin/cat")) ==
      "55691f457000-55691f45c000 r-xp 00002000 fe:00 247134                     "
      "/usr/bin/cat\n");
  CHECK(map_line(anonymous(0x7f2240893000, 0x7f22408b5000)) ==
        "7f2240893000-7f22408b5000 rw-p 00000000 00:00 0 \n");
  VmaInfo heap = anonymous(0x55693a281000, 0x55693a2a2000);
  heap.name = VmaName::kHeap;
  CHECK(map_line(heap) ==
        "55693a281000-55693a2a2000 rw-p 00000000 00:00 0                          [heap]\n");
  CHECK(map_line(anonymous(0x400000, 0x401000, 0)) == "00400000-00401000 ---p 00000000 00:00 0 \n");
  const std::string shared =
      map_line(file(0x1000, 0x2000, 3, VmaKind::kWindowShared, "/a\nb (deleted)"));
  CHECK(shared.find("rw-s") != std::string::npos);
  CHECK(shared.find("/a\\012b (deleted)\n") != std::string::npos);
}

TEST_CASE("an entry of smaps has the fields of Linux 6.1") {
  PageUsage usage;
  usage.present = 10;
  usage.private_dirty = 4;
  usage.private_clean = 1;
  usage.shared_dirty = 5;
  usage.accessed = 9;
  usage.anonymous = 10;
  ProcText out;
  format_smap(out, anonymous(0x7f0000000000, 0x7f0000400000), usage, LargePages::kYes);
  const std::string text = text_of(out);
  CHECK(line_of(text, "Size:") == "Size:               4096 kB");
  CHECK(line_of(text, "Rss:") == "Rss:                  40 kB");
  CHECK(line_of(text, "Pss:") == "Pss:                  28 kB");
  CHECK(line_of(text, "Private_Dirty:") == "Private_Dirty:        16 kB");
  CHECK(line_of(text, "Shared_Dirty:") == "Shared_Dirty:         20 kB");
  CHECK(line_of(text, "Private_Hugetlb:") == "Private_Hugetlb:       0 kB");
  CHECK(line_of(text, "THPeligible:") == "THPeligible:    1");
  CHECK(line_of(text, "VmFlags:") == "VmFlags: rd wr mr mw me ac ");
  CHECK(labels(text.substr(text.find('\n') + 1)) ==
        "Size\nKernelPageSize\nMMUPageSize\nRss\nPss\nPss_Dirty\nShared_Clean\nShared_Dirty\n"
        "Private_Clean\nPrivate_Dirty\nReferenced\nAnonymous\nLazyFree\nAnonHugePages\n"
        "ShmemPmdMapped\nFilePmdMapped\nShared_Hugetlb\nPrivate_Hugetlb\nSwap\nSwapPss\nLocked\n"
        "THPeligible\nVmFlags\n");
}

TEST_CASE("smaps and status say that a process has given up pages of 2 MiB") {
  ProcText entry;
  format_smap(entry, anonymous(0x7f0000000000, 0x7f0000400000), PageUsage{}, LargePages::kNo);
  CHECK(line_of(text_of(entry), "THPeligible:") == "THPeligible:    0");
  const std::string host = "Name:\tdb\nTHP_enabled:\t1\nThreads:\t1\n";
  ProcessFacts facts{};
  ProcText kept;
  format_status(kept, host.data(), host.size(), statistics(), MemorySums{}, facts);
  CHECK(line_of(text_of(kept), "THP_enabled:") == "THP_enabled:\t1");
  facts.large_pages = LargePages::kNo;
  ProcText given_up;
  format_status(given_up, host.data(), host.size(), statistics(), MemorySums{}, facts);
  CHECK(line_of(text_of(given_up), "THP_enabled:") == "THP_enabled:\t0");
}

TEST_CASE("smaps_rollup begins with its range") {
  ProcText out;
  format_smaps_rollup(out, {VirtualAddress(0x55a1102a5000), VirtualAddress(0x7fff6abe0000)},
                      PageUsage{}, 0);
  const std::string text = text_of(out);
  CHECK(text.substr(0, text.find('\n')) ==
        "55a1102a5000-7fff6abe0000 ---p 00000000 00:00 0                          [rollup]");
  CHECK(labels(text).find("Pss_Dirty\nPss_Anon\nPss_File\nPss_Shmem\nShared_Clean\n") !=
        std::string::npos);
}

TEST_CASE("statm counts pages") {
  ProcText out;
  MemorySums sums;
  add_to_sums(sums, anonymous(0x10000, 0x20000));
  add_to_sums(sums, file(0x30000, 0x34000, 5, VmaKind::kWindowPrivate, "/lib"));
  add_to_sums(sums, file(0x40000, 0x44000, 3, VmaKind::kWindowShared, "/data"));
  CHECK(sums.data == 0x10000);
  CHECK(sums.executable == 0x4000);
  format_statm(out, statistics(), sums, ProcessFacts{20 * kKiB, 1, 0});
  CHECK(text_of(out) == "765 439 410 5 0 16 0\n");
}

TEST_CASE("status keeps Linux's lines and replaces those about memory") {
  const std::string host = host_file("/proc/self/status");
  ProcText out;
  MemorySums sums;
  sums.data = 360 * kKiB;
  sums.stack = 132 * kKiB;
  sums.executable = 1548 * kKiB;
  format_status(out, host.data(), host.size(), statistics(), sums,
                ProcessFacts{20 * kKiB, 7, 0x4202});
  const std::string text = text_of(out);
  CHECK(labels(text) == labels(host));
  CHECK(line_of(text, "Pid:") == line_of(host, "Pid:"));
  CHECK(line_of(text, "VmPeak:") == "VmPeak:\t    4000 kB");
  CHECK(line_of(text, "VmRSS:") == "VmRSS:\t    1756 kB");
  CHECK(line_of(text, "VmExe:") == "VmExe:\t      20 kB");
  CHECK(line_of(text, "VmLib:") == "VmLib:\t    1528 kB");
  CHECK(line_of(text, "VmStk:") == "VmStk:\t     132 kB");
  CHECK(line_of(text, "Threads:") == "Threads:\t7");
  CHECK(line_of(text, "SigCgt:") == "SigCgt:\t0000000000004202");
}

TEST_CASE("stat keeps Linux's fields and replaces the program's own") {
  const std::string host =
      "21939 (a b) c) R 21935 21935 4527 0 -1 4194304 9 0 0 0 1 2 0 0 20 0 1 0 306078 1 2 "
      "18446744073709551615 3 4 5 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 6 7 8 9 10 11 12 0\n";
  ProgramLayout layout{};
  layout.code_start = 101;
  layout.code_end = 102;
  layout.stack_start = 103;
  layout.data_start = 104;
  layout.environment_end = 105;
  ProcText out;
  format_stat(out, host.data(), host.size(), statistics(), layout, ProcessFacts{0, 7, 0});
  CHECK(text_of(out) ==
        "21939 (a b) c) R 21935 21935 4527 0 -1 4194304 106 0 0 0 1 2 0 0 20 0 7 0 306078 3133440 "
        "439 18446744073709551615 101 102 103 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 104 0 0 0 0 0 105 "
        "0\n");
}

TEST_CASE("only files of a process that show the VMM are recognised") {
  CHECK(parse_proc_path("/proc/self/maps").file == ProcFile::kMaps);
  CHECK(parse_proc_path("/proc/thread-self/smaps_rollup").file == ProcFile::kSmapsRollup);
  CHECK(parse_proc_path("/proc/1234/stat").process == 1234);
  CHECK(parse_proc_path("/proc/self/task/77/status").thread == 77);
  CHECK(parse_proc_path("/proc/self/task/77/status").file == ProcFile::kStatus);
  CHECK(parse_proc_path("/proc/self/mem").file == ProcFile::kForbidden);
  CHECK(parse_proc_path("/proc/meminfo").file == ProcFile::kMemoryInformation);
  CHECK(parse_proc_path("/proc/self/meminfo").file == ProcFile::kNone);
  CHECK(parse_proc_path("/proc/12/oom_score_adj").file == ProcFile::kOutOfMemoryScore);
  for (const char* path : {"/proc/self/map", "/proc/self/mapsx", "/proc/self/maps/", "/proc/maps",
                           "/proc/self/fd/3", "/proc/self/task/maps", "/proc/0/maps",
                           "/proc/123x/maps", "proc/self/maps", "/proc/self", "/proc/stat", ""}) {
    CHECK(parse_proc_path(path).file == ProcFile::kNone);
  }
}

TEST_CASE("relative paths that may name such a file are told by their end") {
  for (const char* path : {"maps", "self/maps", "../1/limits", "task/7/status", "meminfo"}) {
    CHECK(ends_with_proc_file(path));
  }
  for (const char* path : {"", "map", "maps/", "redis.conf", "stat/x"}) {
    CHECK(!ends_with_proc_file(path));
  }
}

TEST_CASE("meminfo has Linux's lines, and no more memory than --memory") {
  const std::string host = host_file("/proc/meminfo");
  ProcText same;
  format_memory_information(same, host.data(), host.size(), {u64{1} << 60, u64{1} << 60});
  CHECK(text_of(same) == host);
  ProcText less;
  format_memory_information(less, host.data(), host.size(), {64 * kMiB, 3 * kMiB});
  const std::string text = text_of(less);
  CHECK(labels(text) == labels(host));
  CHECK(text.substr(0, text.find('\n')) == "MemTotal:          65536 kB");
  CHECK(line_of(text, "MemFree:") == "MemFree:            3072 kB");
  CHECK(line_of(text, "MemAvailable:") == "MemAvailable:       3072 kB");
  CHECK(line_of(text, "Cached:") == line_of(host, "Cached:"));
}

TEST_CASE("limits are Linux's lines with the program's own in them") {
  std::ifstream file("/proc/self/limits");
  std::stringstream host;
  host << file.rdbuf();
  const auto own = [](int resource) {
    rlimit limit = {};
    getrlimit(static_cast<__rlimit_resource>(resource), &limit);
    return ResourceLimit{limit.rlim_cur, limit.rlim_max};
  };
  MemoryLimits limits = {own(RLIMIT_AS), own(RLIMIT_DATA), own(RLIMIT_STACK)};
  ProcText same;
  format_limits(same, host.str().data(), host.str().size(), limits);
  CHECK(text_of(same) == host.str());

  limits.stack = {1048576, kUnlimited};
  ProcText changed;
  format_limits(changed, host.str().data(), host.str().size(), limits);
  CHECK_THAT(
      text_of(changed),
      Catch::Contains("\nMax stack size            1048576              unlimited            "
                      "bytes     \n"));
}

TEST_CASE("a long text spans several pieces") {
  ProcText out;
  for (u64 i = 0; i < 10000; ++i) out.decimal(i, 8).put('\n');
  const std::string text = text_of(out);
  CHECK(text.size() == 90000);
  CHECK(out.size() == 90000);
  CHECK(text.substr(89991) == "    9999\n");
  CHECK(text_of(ProcText().hexadecimal(0)) == "0");
  CHECK(text_of(ProcText().hexadecimal(~u64{0}, 8)) == "ffffffffffffffff");
}

}  // namespace dbos
