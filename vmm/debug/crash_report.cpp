#include "vmm/debug/crash_report.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "vmm/debug/backtrace.h"
#include "vmm/debug/core_file.h"
#include "vmm/debug/debug_state.h"
#include "vmm/debug/large_stack.h"
#include "vmm/debug/report_text.h"
#include "vmm/debug/stop.h"
#include "vmm/error.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/printable.h"
#include "vmm/process/host_process.h"
#include "vmm/process/signals.h"

namespace dbos::vmm {
namespace {

CrashOptions* the_options = nullptr;

// What can be known before it is needed. Absolute: the program may change its directory.
std::string usable_core_file(const std::string& path) {
  const std::filesystem::path absolute = std::filesystem::absolute(path);
  struct stat status = {};
  const bool is_there = lstat(absolute.c_str(), &status) == 0;
  if (is_there && !S_ISREG(status.st_mode)) {
    throw StartError("can't write the file of --core " + path + ": it is no regular file");
  }
  const bool is_writable = is_there ? access(absolute.c_str(), W_OK) == 0
                                    : access(absolute.parent_path().c_str(), W_OK | X_OK) == 0;
  if (!is_writable) throw StartError::with_errno("can't write the file of --core {}", path);
  return absolute;
}

// Anonymous memory that was never touched stays a hole, however large; a file's page is fetched.
uint64_t read_page(const DebugMapping& mapping, uint64_t address, void* destination, size_t size) {
  const bool has_file = mapping.path[0] == '/' || std::strcmp(mapping.path, "[vdso]") == 0;
  if (has_file) return read_program(address, destination, size) == size ? 0 : size;
  return read_present(address, destination, size) == size ? 0 : absent_from(address);
}

CoreProgram describe_program(uint32_t first, int signal) {
  CoreProgram program{};
  program.signal = signal;
  program.path = program_path();
  program.extended_features = extended_state_features();
  program.mappings = program_mappings();
  program.auxiliary_vector = read_auxiliary_vector();
  for (const ThreadView& view : debugged_threads()) {
    CoreThread thread{view.thread_id, {}};
    if (!read_registers(view.vcpu, &thread.registers)) continue;
    program.process_id = view.process_id;
    const bool is_first = view.vcpu == first;
    program.threads.insert(is_first ? program.threads.begin() : program.threads.end(), thread);
  }
  return program;
}

std::string backtrace_of_program(uint32_t vcpu) {
  const auto [begin, end] = auxiliary_vector_range();
  const auto modules = loaded_modules(read_program, program_path(), begin, end);
  return format_backtrace(program_backtrace(program_frame(vcpu), read_program, modules));
}

std::string report_text(const Vcpu& vcpu, int signal) {
  const ProgramFrame& frame = program_frame(vcpu.index);
  std::string text = fmt::format("the program died: signal {} ({}), thread {} of {}, on vCPU {}\n",
                                 signal, strsignal(signal), vcpu.host_thread.load(),
                                 printable(program_path()), vcpu.index);
  text += format_registers(frame);
  text += format_code(frame.rip, read_program);
  text += backtrace_of_program(vcpu.index);
  text += format_last_calls(*vcpu.page);
  text += format_mapping_summary(program_mappings(), frame.rip);
  if (the_options->core_file.empty()) text += "for a core, that gdb opens: dbos-run --core FILE\n";
  return text;
}

// Result: empty, or what failed.
std::string write_core_file(const std::string& path, uint32_t vcpu, int signal) {
  const CoreFile file = open_core_file(path);
  if (!file.error.empty()) return file.error;
  std::string error = write_core_into(keep_descriptor(file.descriptor), vcpu, signal);
  // A part of a core is of no use, and may be what has filled the disk.
  if (file.is_new && !error.empty()) unlink(path.c_str());
  return error;
}

void write_core_at_death(const Vcpu& vcpu, int signal) {
  const std::string error = write_core_file(the_options->core_file, vcpu.index, signal);
  write_report(error.empty() ? "core: " + the_options->core_file
                             : "no core in " + the_options->core_file + ": " + error);
}

// The program may have died of having no descriptors left; it needs its limit no more.
void raise_descriptor_limit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

void set_crash_options(const CrashOptions& options) {
  the_options = new CrashOptions(options);  // other threads use it until the very end
  std::string& core_file = the_options->core_file;
  if (!core_file.empty()) core_file = usable_core_file(core_file);
}

void handle_crash(Vcpu& vcpu, int signal) {
  const bool is_wanted = the_options != nullptr && vcpu.process->parent == nullptr;
  if (!is_wanted || !dumps_core(signal)) return;
  block_all_signals();
  if (!attach_debugger("the crash report").empty()) return;
  if (stop_all()) {
    raise_descriptor_limit();
    run_on_large_stack([&] {
      if (the_options->report) write_report(report_text(vcpu, signal));
      if (!the_options->core_file.empty()) write_core_at_death(vcpu, signal);
    });
  } else {
    write_report("no report and no core: a thread stays in the guest kernel");
  }
  // The threads stay stopped: what they would do is no part of a program that is dead.
}

std::string write_core_into(int kept, uint32_t vcpu, int signal) {
  struct stat file = {};
  std::string error;
  if (fstat(kept, &file) == 0 && !S_ISREG(file.st_mode)) {
    error = "that is no regular file";
  } else if (ftruncate(kept, 0) != 0) {
    error = std::strerror(errno);
  } else {
    error = write_core(kept, describe_program(vcpu, signal), read_page);
  }
  close_kept(kept);
  return error;
}

}  // namespace dbos::vmm
