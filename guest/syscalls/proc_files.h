// The files of /proc/<own process> that must show the program and not the VMM: maps, smaps,
// smaps_rollup, statm, stat, status, limits, cmdline, environ, auxv, exe; oom_score_adj, which a
// child must not write; and /proc/meminfo. Everything else there is Linux's.
//
// A file is put together when it is opened, and handed to the program as a sealed memfd: it does
// not change when it is read again from its beginning.
#pragma once

#include "guest/process/thread.h"
#include "guest/syscalls/answer.h"

namespace dbos {

// Calls that open one of these files, read the link or look at what is behind it. Nothing: no
// such call, or not such a file.
Answer dispatch_proc_file(Thread& thread, u64 number, const u64 arguments[6]);

// Where the program's executable is, if that is what the path names (in the kernel's memory;
// nullptr if not): for execve, which programs use to start themselves again (busybox for each
// applet).
const char* executable_behind(Thread& thread, const char* path);

enum class ProcFile : u8 {
  kNone,
  kMaps,
  kSmaps,
  kSmapsRollup,
  kStatm,
  kStat,
  kStatus,
  kLimits,
  kCommandLine,
  kEnvironment,
  kAuxiliaryVector,
  kExecutable,
  kForbidden,         // mem, pagemap: the VMM's memory
  kOutOfMemoryScore,  // oom_score_adj, oom_adj
  kMemoryInformation,
};

// What a path names, whoever's process it is.
struct ProcPath {
  ProcFile file = ProcFile::kNone;
  i32 process = 0;  // 0: self or thread-self
  i32 thread = 0;   // 0: none was named
  bool is_thread_self = false;
};
ProcPath parse_proc_path(const char* path);

// Without the 0 at its end.
u64 length_of(const char* text);

// Whether a path ends with the name of one of these files.
bool ends_with_proc_file(const char* path);

// A relative path becomes an absolute one if it may name one of these files: in a directory of
// /proc, which a descriptor stands for or AT_FDCWD. False: it names none.
inline constexpr u64 kProcPathMax = 64;  // the longest of them is shorter
bool make_absolute(char (&path)[kProcPathMax], u64 directory);

}  // namespace dbos
