// Which file of /proc/<own process> a path names.
#include "guest/syscalls/proc_files.h"

namespace dbos {

namespace {

// Takes `word` off the front of the path.
bool take(const char*& path, const char* word) {
  const char* rest = path;
  for (; *word != 0; ++word, ++rest) {
    if (*rest != *word) return false;
  }
  path = rest;
  return true;
}

bool take_number(const char*& path, i32& number) {
  const char* rest = path;
  i64 value = 0;
  while (*rest >= '0' && *rest <= '9' && value < 100'000'000) value = value * 10 + (*rest++ - '0');
  if (rest == path || value == 0) return false;
  number = static_cast<i32>(value);
  path = rest;
  return true;
}

bool is_equal(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

struct Name {
  const char* name;
  ProcFile file;
};
constexpr Name kNames[] = {
    {"maps", ProcFile::kMaps},
    {"smaps", ProcFile::kSmaps},
    {"smaps_rollup", ProcFile::kSmapsRollup},
    {"statm", ProcFile::kStatm},
    {"stat", ProcFile::kStat},
    {"status", ProcFile::kStatus},
    {"limits", ProcFile::kLimits},
    {"cmdline", ProcFile::kCommandLine},
    {"environ", ProcFile::kEnvironment},
    {"auxv", ProcFile::kAuxiliaryVector},
    {"exe", ProcFile::kExecutable},
    {"mem", ProcFile::kForbidden},
    {"pagemap", ProcFile::kForbidden},
    {"oom_score_adj", ProcFile::kOutOfMemoryScore},
    {"oom_adj", ProcFile::kOutOfMemoryScore},
};
constexpr Name kMeminfo = {"meminfo", ProcFile::kMemoryInformation};  // of the machine

ProcFile file_with_name(const char* wanted) {
  for (const Name& name : kNames) {
    if (is_equal(wanted, name.name)) return name.file;
  }
  return ProcFile::kNone;
}

}  // namespace

u64 length_of(const char* text) {
  u64 length = 0;
  while (text[length] != 0) ++length;
  return length;
}

bool ends_with_proc_file(const char* path) {
  const char* last = path;
  for (; *path != 0; ++path) {
    if (*path == '/') last = path + 1;
  }
  return file_with_name(last) != ProcFile::kNone || is_equal(last, kMeminfo.name);
}

ProcPath parse_proc_path(const char* path) {
  ProcPath parsed;
  if (!take(path, "/proc/")) return {};
  if (is_equal(path, kMeminfo.name)) {
    parsed.file = kMeminfo.file;
    return parsed;
  }
  parsed.is_thread_self = take(path, "thread-self/");
  if (!parsed.is_thread_self && !take(path, "self/")) {
    if (!take_number(path, parsed.process) || !take(path, "/")) return {};
  }
  if (take(path, "task/") && (!take_number(path, parsed.thread) || !take(path, "/"))) return {};
  parsed.file = file_with_name(path);
  return parsed;
}

}  // namespace dbos
