#include "vmm/debug/backtrace.h"

#include <cxxabi.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>

#include "hypercall/layout.h"

namespace dbos::vmm {
namespace {

constexpr pid_t kOnlyThread = 1;

struct DwflEnd {
  void operator()(Dwfl* dwfl) const { dwfl_end(dwfl); }
};
using DwflPointer = std::unique_ptr<Dwfl, DwflEnd>;

// What libdwfl's callbacks need.
struct Unwinding {
  const ProgramFrame& frame;
  const MemoryReader& read;
  Dwfl* dwfl;
  std::vector<CallFrame> frames;
};

int find_no_elf(Dwfl_Module*, void**, const char*, Dwarf_Addr, char**, Elf**) {
  return -1;
}

char* debug_path = nullptr;  // libdwfl's default: /usr/lib/debug and beside the file

constexpr Dwfl_Callbacks kCallbacks = {find_no_elf, dwfl_standard_find_debuginfo,
                                       dwfl_offline_section_address, &debug_path};

pid_t next_thread(Dwfl*, void* argument, void** thread_argument) {
  if (*thread_argument != nullptr) return 0;
  *thread_argument = argument;
  return kOnlyThread;
}

bool get_thread(Dwfl*, pid_t thread, void* argument, void** thread_argument) {
  *thread_argument = argument;
  return thread == kOnlyThread;
}

bool read_word(Dwfl*, Dwarf_Addr address, Dwarf_Word* result, void* argument) {
  const auto& unwinding = *static_cast<const Unwinding*>(argument);
  return unwinding.read(address, result, sizeof *result) == sizeof *result;
}

// In DWARF's order (System V ABI for AMD64, figure 3.36).
bool set_registers(Dwfl_Thread* thread, void* argument) {
  const ProgramFrame& f = static_cast<const Unwinding*>(argument)->frame;
  const Dwarf_Word registers[] = {f.rax, f.rdx, f.rcx, f.rbx, f.rsi, f.rdi, f.rbp, f.rsp, f.r8,
                                  f.r9,  f.r10, f.r11, f.r12, f.r13, f.r14, f.r15, f.rip};
  return dwfl_thread_state_registers(thread, 0, std::size(registers), registers);
}

constexpr Dwfl_Thread_Callbacks kThreadCallbacks = {next_thread,   get_thread, read_word,
                                                    set_registers, nullptr,    nullptr};

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 && text ? text.get() : name;
}

std::string base_name(const char* path) {
  const char* const slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

// `lookup`: an address within the instruction that is meant; the caller's call, for a return
// address.
CallFrame describe(Dwfl* dwfl, uint64_t address, uint64_t lookup) {
  CallFrame frame{address, {}, 0, {}, {}};
  Dwfl_Module* const module = dwfl_addrmodule(dwfl, lookup);
  if (module == nullptr) return frame;
  if (const char* const path =
          dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr)) {
    frame.module = base_name(path);
  }
  GElf_Off offset = 0;
  GElf_Sym symbol;
  const char* const name =
      dwfl_module_addrinfo(module, lookup, &offset, &symbol, nullptr, nullptr, nullptr);
  if (name != nullptr) {
    frame.function = demangled(name);
    frame.offset = offset + (address - lookup);
  }
  int line = 0;
  Dwfl_Line* const source = dwfl_module_getsrc(module, lookup);
  const char* const file = source == nullptr
                               ? nullptr
                               : dwfl_lineinfo(source, nullptr, &line, nullptr, nullptr, nullptr);
  if (file != nullptr) frame.source = fmt::format("{}:{}", base_name(file), line);
  return frame;
}

int add_frame(Dwfl_Frame* state, void* argument) {
  auto& unwinding = *static_cast<Unwinding*>(argument);
  Dwarf_Addr address = 0;
  bool is_activation = false;
  if (!dwfl_frame_pc(state, &address, &is_activation) || address == 0) return DWARF_CB_ABORT;
  unwinding.frames.push_back(
      describe(unwinding.dwfl, address, is_activation ? address : address - 1));
  return unwinding.frames.size() < kCallFramesMax ? DWARF_CB_OK : DWARF_CB_ABORT;
}

// The guest kernel's image, which dbos-run has in its own memory, as a file for libdwfl.
bool report_kernel(Dwfl* dwfl, std::span<const std::byte> image) {
  const int descriptor = memfd_create("libdbos.elf", MFD_CLOEXEC);
  if (descriptor < 0) return false;
  const bool written =
      write(descriptor, image.data(), image.size()) == static_cast<ssize_t>(image.size());
  // libdwfl closes the descriptor if it takes it.
  const bool reported = written && dwfl_report_elf(dwfl, "libdbos.elf", "libdbos.elf", descriptor,
                                                   0, true) != nullptr;
  if (!reported) close(descriptor);
  return reported;
}

}  // namespace

std::vector<CallFrame> program_backtrace(const ProgramFrame& frame, const MemoryReader& read,
                                         const std::vector<LoadedModule>& modules) {
  const DwflPointer dwfl(dwfl_begin(&kCallbacks));
  if (!dwfl) return {};
  dwfl_report_begin(dwfl.get());
  for (const LoadedModule& module : modules) {
    dwfl_report_elf(dwfl.get(), module.path.c_str(), module.path.c_str(), -1, module.bias, true);
  }
  dwfl_report_end(dwfl.get(), nullptr, nullptr);
  Unwinding unwinding{frame, read, dwfl.get(), {}};
  if (dwfl_attach_state(dwfl.get(), nullptr, kOnlyThread, &kThreadCallbacks, &unwinding)) {
    dwfl_getthread_frames(dwfl.get(), kOnlyThread, add_frame, &unwinding);
  }
  if (unwinding.frames.empty()) {
    unwinding.frames.push_back(describe(dwfl.get(), frame.rip, frame.rip));
  }
  return unwinding.frames;
}

std::vector<CallFrame> kernel_backtrace(std::span<const std::byte> image, uint64_t instruction,
                                        uint64_t frame_pointer, const MemoryReader& read) {
  const DwflPointer dwfl(dwfl_begin(&kCallbacks));
  if (!dwfl) return {};
  dwfl_report_begin(dwfl.get());
  report_kernel(dwfl.get(), image);
  dwfl_report_end(dwfl.get(), nullptr, nullptr);
  std::vector<CallFrame> frames = {describe(dwfl.get(), instruction, instruction)};
  while (frame_pointer != 0 && frames.size() < kCallFramesMax) {
    uint64_t frame[2];  // the caller's frame pointer, the return address
    const bool is_read = read(frame_pointer, frame, sizeof frame) == sizeof frame;
    if (!is_read || frame[1] < kKernelImageBase) break;
    frames.push_back(describe(dwfl.get(), frame[1], frame[1] - 1));
    if (frame[0] <= frame_pointer) break;
    frame_pointer = frame[0];
  }
  return frames;
}

std::string format_backtrace(const std::vector<CallFrame>& frames, size_t first) {
  std::string text;
  for (const CallFrame& frame : frames) {
    fmt::format_to(std::back_inserter(text), "#{:<3} {:#018x} {}", first++, frame.address,
                   frame.function.empty() ? "??" : frame.function);
    if (!frame.function.empty()) {
      fmt::format_to(std::back_inserter(text), "+{:#x}", frame.offset);
    }
    const std::string& where = frame.source.empty() ? frame.module : frame.source;
    if (!where.empty()) fmt::format_to(std::back_inserter(text), " ({})", where);
    text += '\n';
  }
  return text;
}

}  // namespace dbos::vmm
