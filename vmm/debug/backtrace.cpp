#include "vmm/debug/backtrace.h"

#include <elfutils/libdwfl.h>
#include <fmt/core.h>

#include "hypercall/layout.h"
#include "vmm/debug/symbols.h"

namespace dbos::vmm {
namespace {

constexpr pid_t kOnlyThread = 1;

// What libdwfl's callbacks need.
struct Unwinding {
  const ProgramFrame& frame;
  const MemoryReader& read;
  const Symbols& symbols;
  std::vector<CallFrame> frames;
};

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

int add_frame(Dwfl_Frame* state, void* argument) {
  auto& unwinding = *static_cast<Unwinding*>(argument);
  Dwarf_Addr address = 0;
  bool is_activation = false;
  if (!dwfl_frame_pc(state, &address, &is_activation) || address == 0) return DWARF_CB_ABORT;
  unwinding.frames.push_back(
      unwinding.symbols.describe(address, is_activation ? address : address - 1));
  return unwinding.frames.size() < kCallFramesMax ? DWARF_CB_OK : DWARF_CB_ABORT;
}

}  // namespace

std::vector<CallFrame> program_backtrace(const ProgramFrame& frame, const MemoryReader& read,
                                         const std::vector<LoadedModule>& modules) {
  // Of its own: unwinding can be attached to once.
  const Symbols symbols(modules, {});
  Dwfl* const dwfl = symbols.handle();
  Unwinding unwinding{frame, read, symbols, {}};
  if (dwfl_attach_state(dwfl, nullptr, kOnlyThread, &kThreadCallbacks, &unwinding)) {
    dwfl_getthread_frames(dwfl, kOnlyThread, add_frame, &unwinding);
  }
  if (unwinding.frames.empty()) {
    unwinding.frames.push_back(symbols.describe(frame.rip, frame.rip));
  }
  return unwinding.frames;
}

std::vector<CallFrame> kernel_backtrace(std::span<const std::byte> image, uint64_t instruction,
                                        uint64_t frame_pointer, const MemoryReader& read) {
  const Symbols symbols({}, image);
  std::vector<CallFrame> frames = {symbols.describe(instruction, instruction)};
  while (frame_pointer != 0 && frames.size() < kCallFramesMax) {
    uint64_t frame[2];  // the caller's frame pointer, the return address
    const bool is_read = read(frame_pointer, frame, sizeof frame) == sizeof frame;
    if (!is_read || frame[1] < kKernelImageBase) break;
    frames.push_back(symbols.describe(frame[1], frame[1] - 1));
    if (frame[0] <= frame_pointer) break;
    frame_pointer = frame[0];
  }
  return frames;
}

std::string format_backtrace(const std::vector<CallFrame>& frames) {
  std::string text;
  size_t number = 0;
  for (const CallFrame& frame : frames) {
    text += fmt::format("#{:<3} {:#018x} {}", number++, frame.address,
                        frame.function.empty() ? "??" : frame.function);
    if (!frame.function.empty()) text += fmt::format("+{:#x}", frame.offset);
    const std::string& where = frame.source.empty() ? frame.module : frame.source;
    if (!where.empty()) text += fmt::format(" ({})", where);
    text += '\n';
  }
  return text;
}

}  // namespace dbos::vmm
