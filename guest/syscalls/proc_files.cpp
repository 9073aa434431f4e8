#include "guest/syscalls/proc_files.h"

#include <asm/stat.h>
#include <asm/unistd_64.h>
#include <linux/fcntl.h>
#include <linux/memfd.h>
#include <linux/stat.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/process/file_mapping.h"
#include "guest/process/memory_limits.h"
#include "guest/process/process.h"
#include "guest/process/program_start.h"
#include "guest/process/signal.h"
#include "guest/process/signal_actions.h"
#include "guest/syscalls/proc_status.h"

namespace dbos {

namespace {

constexpr u64 kHostTextMax = 4096;
constexpr u64 kCurrentDirectory = static_cast<u64>(AT_FDCWD);
constexpr u32 kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

bool is_own(Thread& thread, i32 id) {
  if (id == 0 || id == thread.process->process_id) return true;
  LockGuard guard(thread.process->lock);
  for (const Thread* other = thread.process->threads; other != nullptr;
       other = other->next_in_process) {
    if (other->thread_id == id) return true;
  }
  return false;
}

const char* executable_path() {
  const BootInformation& boot = started_program();
  return reinterpret_cast<const char*>(&boot) + boot.executable_path_offset;
}

// Whose thread's file it is: that of the process shows its first thread.
bool is_of_caller(const Thread& thread, const ProcPath& path) {
  if (path.is_thread_self) return true;
  const i32 process = path.process != 0 ? path.process : thread.process->process_id.load();
  return (path.thread != 0 ? path.thread : process) == thread.thread_id;
}

ProcessFacts facts_of(Thread& thread, const ProcPath& path) {
  const ProgramLayout& layout = program_layout();
  ProcessFacts facts{};
  facts.code_size = layout.code_end - align_down(layout.code_start, kPageSize);
  facts.thread_count = count_threads(*thread.process);
  facts.blocked_signals = thread.blocked;
  facts.large_pages = thread.space->large_pages();
  facts.shows_blocked = is_of_caller(thread, path);
  LockGuard guard(thread.process->signal_lock);
  for (u32 signal = 1; signal <= kSignalCount; ++signal) {
    if (is_caught(thread.process->actions[signal - 1])) facts.caught_signals |= signal_bit(signal);
  }
  return facts;
}

// A file of Linux's that fits into one read.
struct HostText {
  char data[kHostTextMax];
  u64 size = 0;
};
Result<void> read_host(HostText& text, const char* path) {
  const i64 descriptor =
      hypercall(__NR_openat, kCurrentDirectory, host_pointer(path), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return error_of(descriptor);
  Call calls[2] = {
      {__NR_read, 0, {static_cast<u64>(descriptor), host_pointer(text.data), kHostTextMax}, 0},
      {__NR_close, 0, {static_cast<u64>(descriptor)}, 0},
  };
  const u32 done = hypercall_batch(calls, 2);
  if (done < 2) hypercall(__NR_close, static_cast<u64>(descriptor));
  if (done == 0) return Error(EINTR);
  if (calls[0].result < 0) return error_of(calls[0].result);
  text.size = static_cast<u64>(calls[0].result);
  return {};
}

// Linux's file, with what is the program's own in it.
Result<void> rewrite_host(ProcText& out, Thread& thread, const ProcPath& parsed, const char* path) {
  AddressSpace& space = *thread.space;
  HostText host;
  DBOS_RETURN_IF_ERROR(read_host(host, path));
  switch (parsed.file) {
    case ProcFile::kStat:
      format_stat(out, host.data, host.size, space.statistics(), program_layout(),
                  facts_of(thread, parsed));
      break;
    case ProcFile::kStatus:
      format_status(out, host.data, host.size, space.statistics(), sum_up(space),
                    facts_of(thread, parsed));
      break;
    case ProcFile::kMemoryInformation:
      format_memory_information(out, host.data, host.size, memory_bounds());
      break;
    default:
      format_limits(out, host.data, host.size, memory_limits(*thread.process));
  }
  return {};
}

// The program's memory as text; what can't be read ends it.
void put_program_bytes(ProcText& out, u64 begin, u64 end) {
  char piece[256];
  while (begin < end) {
    const u64 left = end - begin;
    const u64 size = left < sizeof piece ? left : sizeof piece;
    if (copy_from_program(piece, VirtualAddress(begin), size).is_error()) return;
    out.bytes(piece, size);
    begin += size;
  }
}

// Arguments as they are now: programs write over them to show their state. One that wrote beyond
// their end, into the environment, means a single string (Linux's get_mm_cmdline).
void put_command_line(ProcText& out, const ProgramLayout& layout) {
  const u64 last = layout.arguments_end - 1;
  const Result<u8> end = layout.arguments_start < layout.arguments_end
                             ? read_program<u8>(VirtualAddress(last))
                             : Result<u8>(u8{0});
  if (end.is_error() || end.value() == 0) {
    put_program_bytes(out, layout.arguments_start, layout.arguments_end);
    return;
  }
  for (u64 at = layout.arguments_start; at < layout.environment_end; ++at) {
    const Result<u8> byte = read_program<u8>(VirtualAddress(at));
    if (byte.is_error() || byte.value() == 0) break;
    out.put(static_cast<char>(byte.value()));
  }
  out.put(0);
}

Result<void> write_file(ProcText& out, Thread& thread, const char* path) {
  AddressSpace& space = *thread.space;
  const ProgramLayout& layout = program_layout();
  const ProcPath parsed = parse_proc_path(path);
  switch (parsed.file) {
    case ProcFile::kMaps:
      write_maps(out, space);
      break;
    case ProcFile::kSmaps:
      write_smaps(out, space);
      break;
    case ProcFile::kSmapsRollup:
      write_smaps_rollup(out, space);
      break;
    case ProcFile::kStatm:
      format_statm(out, space.statistics(), sum_up(space), facts_of(thread, parsed));
      break;
    case ProcFile::kStat:
    case ProcFile::kStatus:
    case ProcFile::kLimits:
    case ProcFile::kMemoryInformation:
      DBOS_RETURN_IF_ERROR(rewrite_host(out, thread, parsed, path));
      break;
    case ProcFile::kCommandLine:
      put_command_line(out, layout);
      break;
    case ProcFile::kEnvironment:
      put_program_bytes(out, layout.environment_start, layout.environment_end);
      break;
    case ProcFile::kAuxiliaryVector:
      put_program_bytes(out, layout.auxiliary_start, layout.auxiliary_end);
      break;
    default:
      return Error(ENOENT);
  }
  if (!out.is_complete()) return Error(ENOMEM);
  return {};
}

// Writes the text to the descriptor, several pieces with one exit; then nobody can change it.
Result<void> fill(i64 descriptor, const ProcText& text) {
  Call calls[kCallBatchMax];
  u32 count = 0;
  u64 offset = 0;
  bool failed = false;
  const auto flush = [&] {
    const u32 done = hypercall_batch(calls, count);
    failed |= done < count;
    for (u32 i = 0; i < done; ++i) failed |= calls[i].result < 0;
    count = 0;
  };
  const auto add = [&](const Call& call) {
    if (count == kCallBatchMax) flush();
    calls[count++] = call;
  };
  const u64 target = static_cast<u64>(descriptor);
  text.for_each_piece([&](const char* data, u64 size) {
    add(Call{__NR_pwrite64, 0, {target, host_pointer(data), size, offset}, 0});
    offset += size;
  });
  add(Call{__NR_fcntl, 0, {target, F_ADD_SEALS, kSeals}, 0});
  flush();
  if (failed) return Error(ENOMEM);
  return {};
}

// Puts a description that can be read alone in the place of the one that was written to.
void open_for_reading(i64 descriptor, u64 flags) {
  char link[kDescriptorLinkSize];
  write_descriptor_link(link, static_cast<i32>(descriptor));
  const u64 closing = flags & O_CLOEXEC;
  const i64 reader =
      hypercall(__NR_openat, kCurrentDirectory, host_pointer(link), O_RDONLY | closing);
  if (reader < 0) return;  // at the limit of open files
  Call calls[2] = {
      {__NR_dup3, 0, {static_cast<u64>(reader), static_cast<u64>(descriptor), closing}, 0},
      {__NR_close, 0, {static_cast<u64>(reader)}, 0}};
  hypercall_batch(calls, 2);
}

i64 make_file(Thread& thread, const char* path, u64 flags) {
  ProcText text;
  DBOS_TRY_CALL(write_file(text, thread, path));
  const u64 memory_flags = MFD_ALLOW_SEALING | ((flags & O_CLOEXEC) != 0 ? MFD_CLOEXEC : 0);
  const i64 descriptor = hypercall(__NR_memfd_create, host_pointer(path), memory_flags);
  if (descriptor < 0) return descriptor;
  const Result<void> filled = fill(descriptor, text);
  if (filled.is_ok()) {
    open_for_reading(descriptor, flags);
    return descriptor;
  }
  hypercall(__NR_close, static_cast<u64>(descriptor));
  return negative(filled.error());
}

// A signal would end the host calls half-way, and keep even the closing from being made: Linux
// holds signals back meanwhile.
i64 open_text(Thread& thread, const char* path, u64 flags) {
  if ((flags & O_ACCMODE) != O_RDONLY) return -EACCES;
  const i64 held = hold_signals();
  if (held < 0) return held;
  const i64 result = make_file(thread, path, flags);
  release_signals(thread);
  return result;
}

// Linux gives what is written to all processes that share the VMM's memory, forks among them. A
// child asks to be killed before its parent: what it writes must not reach the parent. A child of
// vfork is an exception of Linux's.
bool would_reach_parent(const Process& process, u64 flags) {
  return (flags & O_ACCMODE) != O_RDONLY && !process.is_first &&
         process.space_use->processes.load() == 1;
}

// Linux lets nobody write to a program that runs.
i64 open_executable(u64 flags) {
  constexpr u64 kMayWrite = 2;  // W_OK
  const u64 path = host_pointer(executable_path());
  if ((flags & O_ACCMODE) == O_RDONLY && (flags & O_TRUNC) == 0) {
    return hypercall(__NR_openat, kCurrentDirectory, path, flags, 0);
  }
  const i64 result = hypercall(__NR_faccessat, kCurrentDirectory, path, kMayWrite);
  return result < 0 ? result : -ETXTBSY;
}

i64 open_file(Thread& thread, ProcFile file, const char* path, u64 flags) {
  switch (file) {
    case ProcFile::kForbidden:
      return -EACCES;
    case ProcFile::kExecutable:
      return open_executable(flags);
    case ProcFile::kOutOfMemoryScore:
      return hypercall(__NR_openat, kCurrentDirectory, host_pointer("/dev/null"),
                       flags & (O_ACCMODE | O_CLOEXEC), 0);
    default:
      return open_text(thread, path, flags);
  }
}

// With these, Linux opens the file, or has an error.
u64 flags_of_linux(ProcFile file) {
  switch (file) {
    case ProcFile::kForbidden:
      return 0;
    case ProcFile::kExecutable:
      return O_PATH | O_DIRECTORY | O_CREAT | O_NOFOLLOW;
    default:
      return O_PATH | O_DIRECTORY | O_EXCL;
  }
}

// `a`: the path and what follows it. False: openat2 asks for more than flags.
bool read_open_flags(u64 number, const u64* a, u64& flags) {
  struct OpenHow {
    u64 flags;
    u64 mode;
    u64 resolve;
  } how{};
  switch (number) {
    case __NR_creat:
      flags = O_CREAT | O_WRONLY | O_TRUNC;
      return true;
    case __NR_openat2:
      if (a[2] != sizeof how) return false;
      if (copy_from_program(&how, VirtualAddress(a[1]), sizeof how).is_error()) return false;
      flags = how.flags;
      return how.mode == 0 && how.resolve == 0;
    default:
      flags = a[1];
      return true;
  }
}

i64 read_executable_link(VirtualAddress buffer, i64 size) {
  if (size <= 0) return -EINVAL;
  const char* const path = executable_path();
  const u64 length = length_of(path);
  const u64 copied = length < static_cast<u64>(size) ? length : static_cast<u64>(size);
  DBOS_TRY_CALL(copy_to_program(buffer, path, copied));
  return static_cast<i64>(copied);
}

i64 copied_to(VirtualAddress buffer, const void* status, u64 size, i64 result) {
  if (result < 0) return result;
  return result_of(copy_to_program(buffer, status, size));
}

// stat, access and the like. `a`: the path and what follows it. Nothing: none of them, or not about
// what is behind the link.
Answer look_at_executable(u64 number, const u64* a) {
  union {
    struct stat status;
    struct statx extended;
  } buffer = {};
  const u64 path = host_pointer(executable_path());
  const u64 address = host_pointer(&buffer);
  switch (number) {
    case __NR_stat:
      return copied_to(VirtualAddress(a[1]), &buffer, sizeof buffer.status,
                       hypercall(__NR_stat, path, address));
    case __NR_newfstatat:
      if ((a[2] & AT_SYMLINK_NOFOLLOW) != 0) return {};
      return copied_to(VirtualAddress(a[1]), &buffer, sizeof buffer.status,
                       hypercall(__NR_newfstatat, kCurrentDirectory, path, address, a[2]));
    case __NR_statx:
      if ((a[1] & AT_SYMLINK_NOFOLLOW) != 0) return {};
      return copied_to(VirtualAddress(a[3]), &buffer, sizeof buffer.extended,
                       hypercall(__NR_statx, kCurrentDirectory, path, a[1], a[2], address));
    case __NR_access:
    case __NR_faccessat:
      return hypercall(__NR_faccessat, kCurrentDirectory, path, a[1]);
    case __NR_faccessat2:
      if ((a[2] & AT_SYMLINK_NOFOLLOW) != 0) return {};
      return hypercall(__NR_faccessat2, kCurrentDirectory, path, a[1], a[2]);
    default:
      return {};
  }
}

// The calls that name such a file; the directory of the second ones is before the path.
bool names_file(u64 number) {
  switch (number) {
    case __NR_open:
    case __NR_creat:
    case __NR_readlink:
    case __NR_stat:
    case __NR_access:
      return true;
    default:
      return false;
  }
}
bool names_file_in_directory(u64 number) {
  switch (number) {
    case __NR_openat:
    case __NR_openat2:
    case __NR_readlinkat:
    case __NR_newfstatat:
    case __NR_statx:
    case __NR_faccessat:
    case __NR_faccessat2:
      return true;
    default:
      return false;
  }
}

}  // namespace

const char* executable_behind(Thread& thread, const char* path) {
  const ProcPath parsed = parse_proc_path(path);
  const bool is_ours = parsed.file == ProcFile::kExecutable && is_own(thread, parsed.process) &&
                       is_own(thread, parsed.thread);
  return is_ours ? executable_path() : nullptr;
}

Answer dispatch_proc_file(Thread& thread, u64 number, const u64 arguments[6]) {
  const bool is_readlink = number == __NR_readlink || number == __NR_readlinkat;
  const bool is_open = number == __NR_open || number == __NR_openat || number == __NR_openat2 ||
                       number == __NR_creat;
  const bool is_at = names_file_in_directory(number);
  if (!is_at && !names_file(number)) return {};
  const u64 directory = is_at ? arguments[0] : kCurrentDirectory;
  const u64* const a = arguments + (is_at ? 1 : 0);

  char path[kProcPathMax];
  if (copy_string_from_program(path, VirtualAddress(a[0]), sizeof path).is_error()) return {};
  if (path[0] != '/' && !make_absolute(path, directory)) return {};
  const ProcPath parsed = parse_proc_path(path);
  if (parsed.file == ProcFile::kNone) return {};
  if (!is_own(thread, parsed.process) || !is_own(thread, parsed.thread)) return {};
  if (!is_open) {
    if (parsed.file != ProcFile::kExecutable) return {};
    if (!is_readlink) return look_at_executable(number, a);
    return read_executable_link(VirtualAddress(a[1]), static_cast<i32>(a[2]));
  }
  u64 flags = 0;
  if (!read_open_flags(number, a, flags)) return {};
  if ((flags & flags_of_linux(parsed.file)) != 0) return {};
  const bool is_score = parsed.file == ProcFile::kOutOfMemoryScore;
  if (is_score && !would_reach_parent(*thread.process, flags)) return {};
  return open_file(thread, parsed.file, path, flags);
}

}  // namespace dbos
