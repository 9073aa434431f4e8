// What a program reads of its own memory in /proc: maps and smaps, and that they follow what it
// does.
#include <sys/auxv.h>

#include <map>

#include "support.h"

namespace {

// The smaps entry that begins with the mapping at `at` or contains it.
std::map<std::string, long> smaps_of(const void* address) {
  std::map<std::string, long> fields;
  uintptr_t at = reinterpret_cast<uintptr_t>(address);
  bool inside = false;
  for (const std::string& line : lines_of(read_all("/proc/self/smaps"))) {
    unsigned long start = 0, end = 0;
    char name[64];
    long value = 0;
    if (sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2) {
      inside = start <= at && at < end;
      if (inside) fields["size"] = static_cast<long>((end - start) / kKiB);
    } else if (inside && sscanf(line.c_str(), "%63[^:]: %ld kB", name, &value) == 2) {
      fields[name] = value;
    }
  }
  return fields;
}

// " rd wr ... " of the mapping that contains it.
std::string vm_flags_of(const void* address) {
  uintptr_t at = reinterpret_cast<uintptr_t>(address);
  bool inside = false;
  for (const std::string& line : lines_of(read_all("/proc/self/smaps"))) {
    unsigned long start = 0, end = 0;
    if (sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2) inside = start <= at && at < end;
    if (inside && line.starts_with("VmFlags:")) return line.substr(sizeof "VmFlags:" - 1);
  }
  return "";
}

int data_word = 1;
const int constant_word = 2;

}  // namespace

CASE(maps_show_the_program) {
  CHECK(map_of(reinterpret_cast<const void*>(&map_of)).permissions == "r-xp");
  CHECK(map_of(&data_word).permissions == "rw-p");
  std::string constants = map_of(&constant_word).permissions;
  CHECK(constants == "r--p" || constants == "r-xp");
  CHECK(map_of(reinterpret_cast<const void*>(&map_of)).name == check::self);
  CHECK(map_of(&data_word).name == check::self || map_of(&data_word).name.empty());
}

CASE(maps_show_stack_and_heap) {
  int here = 0;
  MapLine stack = map_of(&here);
  CHECK(stack.name == "[stack]");
  CHECK(stack.permissions == "rw-p");
  void* small = malloc(100);
  char* top = static_cast<char*>(sbrk(0));
  MapLine heap = map_of(top - 1);
  CHECK(heap.name == "[heap]");
  CHECK(heap.permissions == "rw-p");
  CHECK_EQ(heap.end, reinterpret_cast<uintptr_t>(top));
  CHECK(map_of(small).name == "[heap]");
  free(small);
}

CASE(maps_show_the_vdso) {
  unsigned long image = getauxval(AT_SYSINFO_EHDR);
  REQUIRE(image != 0);
  MapLine line = map_of(reinterpret_cast<void*>(image));
  CHECK(line.name == "[vdso]");
  CHECK(line.permissions == "r-xp");
}

CASE(maps_are_sorted_and_do_not_overlap) {
  uintptr_t last = 0;
  for (const MapLine& line : read_maps()) {
    if (line.name == "[vsyscall]") continue;
    CHECK(line.start >= last);
    CHECK(line.end > line.start);
    CHECK(line.start % kPage == 0 && line.end % kPage == 0);
    last = line.end;
  }
}

CASE(maps_follow_changes) {
  void* at = map_anonymous(4 * kPage);
  CHECK(layout_is(at, 4 * kPage, "rw-p:4"));
  mprotect(at, kPage, PROT_READ);
  CHECK(layout_is(at, 4 * kPage, "r--p:1 rw-p:3"));
  munmap(offset(at, 2 * kPage), kPage);
  CHECK(layout_is(at, 4 * kPage, "r--p:1 rw-p:1 hole:1 rw-p:1"));
  munmap(at, 4 * kPage);
  CHECK(layout_is(at, 4 * kPage, "hole:4"));
}

CASE(maps_can_be_read_in_small_pieces) {
  std::string whole = read_all("/proc/self/maps"), pieces;
  int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  REQUIRE(file != -1);
  char block[4096];
  for (ssize_t n; (n = read(file, block, sizeof block)) > 0;)
    pieces.append(block, static_cast<size_t>(n));
  close(file);
  CHECK_EQ(lines_of(whole).size(), lines_of(pieces).size());
  file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  CHECK(read(file, block, 10) > 0);
  CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
  ssize_t n = read(file, block, 10);
  CHECK(n > 0 && memcmp(block, whole.data(), static_cast<size_t>(n)) == 0);
  close(file);
}

CASE(advice_how_memory_is_read_shows) {
  void* at = map_anonymous(4 * kPage);
  const auto has_flag = [&](const void* address, const char* flag) {
    return vm_flags_of(address).find(flag) != std::string::npos;
  };
  REQUIRE(madvise(offset(at, kPage), kPage, MADV_RANDOM) == 0);
  CHECK(has_flag(offset(at, kPage), " rr ") && !has_flag(at, " rr "));
  REQUIRE(madvise(at, 4 * kPage, MADV_SEQUENTIAL) == 0);
  CHECK(has_flag(offset(at, kPage), " sr ") && !has_flag(offset(at, kPage), " rr "));
  REQUIRE(madvise(at, 4 * kPage, MADV_NORMAL) == 0);
  CHECK(!has_flag(offset(at, kPage), " sr ") && !has_flag(offset(at, kPage), " rr "));
  munmap(at, 4 * kPage);
}

CASE(locked_memory_has_pages_of_its_own) {
  const size_t length = 8 * kPage;
  void* at = map_anonymous(length);
  REQUIRE(mlock(at, length) == 0);
  CHECK_EQ(smaps_of(at)["Rss"], 32);
  CHECK_EQ(smaps_of(at)["Private_Dirty"], 32);
  munmap(at, length);
  CHECK(exited(run_child([=] {
    if (mlockall(MCL_FUTURE) != 0) _exit(0);  // not permitted natively
    void* later = map_anonymous(length);
    CHECK_EQ(smaps_of(later)["Rss"], 32);
  })));
}

CASE(smaps_count_touched_memory) {
  const size_t length = 32 * kMiB;
  void* at = map_aligned(length);
  madvise(at, length, MADV_NOHUGEPAGE);
  auto fields = smaps_of(at);
  CHECK(fields["size"] >= 32768);
  CHECK_EQ(fields["Size"], fields["size"]);
  long before = fields["Rss"];
  fill(at, length, 1);
  fields = smaps_of(at);
  CHECK(fields["Rss"] - before >= 32768);
  CHECK(fields["Private_Dirty"] >= 32768);
  CHECK(fields["Anonymous"] >= 32768);
  CHECK(fields["Pss"] <= fields["Rss"]);
  CHECK(fields["Rss"] <= fields["Size"]);
  CHECK_EQ(fields["Shared_Clean"] + fields["Shared_Dirty"] + fields["Private_Clean"] +
               fields["Private_Dirty"],
           fields["Rss"]);
  CHECK_EQ(fields["KernelPageSize"], 4);
  madvise(at, length / 2, MADV_DONTNEED);
  long after = smaps_of(at)["Rss"];
  CHECK(fields["Rss"] - after >= 16384);
  munmap(at, length);
}

CASE(private_dirty_grows_as_a_child_writes) {
  // What a database reads to report its copy-on-write cost.
  const size_t length = 16 * kMiB;
  void* at = map_aligned(length);
  madvise(at, length, MADV_NOHUGEPAGE);
  fill(at, length, 1);
  auto dirty = [=] { return smaps_of(at)["Private_Dirty"]; };
  long alone = dirty();
  CHECK(alone >= 16384);
  Pipe step, tell;
  pid_t child = start_child([&] {
    long start = dirty();
    CHECK(start < 4096);  // shared with the parent
    fill(at, length / 2, 2);
    long half = dirty();
    CHECK(half - start >= 8192);
    fill(at, length, 3);
    CHECK(dirty() >= 16384);
    tell.post();
    step.take();
  });
  CHECK(tell.take() == 'x');
  CHECK(dirty() >= 16384);  // the child has copied them all, so the parent's are its own again
  step.post();
  CHECK(exited(status_of(child)));
  CHECK(filled(at, length, 1));
  munmap(at, length);
}

CASE(private_dirty_grows_as_the_parent_writes) {
  const size_t length = 16 * kMiB;
  void* at = map_aligned(length);
  madvise(at, length, MADV_NOHUGEPAGE);
  fill(at, length, 1);
  auto dirty = [=] { return smaps_of(at)["Private_Dirty"]; };
  Pipe step;
  pid_t child = start_child([&] {
    step.close_write();
    step.take();
  });
  CHECK(dirty() < 4096);
  fill(at, length / 2, 2);
  CHECK(dirty() >= 8192);
  CHECK(dirty() < 12288);
  step.close_write();
  CHECK(exited(status_of(child)));
  CHECK(dirty() >= 16384);
  munmap(at, length);
}

CASE(smaps_rollup_adds_up) {
  std::string text = read_all("/proc/self/smaps_rollup");
  if (text.empty()) SKIP("no smaps_rollup");
  void* at = map_anonymous(8 * kMiB);
  long before = field(text, "Rss");
  fill(at, 8 * kMiB, 1);
  text = read_all("/proc/self/smaps_rollup");
  CHECK(before > 0);
  CHECK(field(text, "Rss") - before >= 8192 - 256);
  CHECK(field(text, "Private_Dirty") >= 8192);
  munmap(at, 8 * kMiB);
}

CHECK_MAIN
