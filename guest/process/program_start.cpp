// What execve does in Linux: images, stack, auxiliary vector (fs/binfmt_elf.c).
#include "guest/process/program_start.h"

#include <asm/unistd_64.h>
#include <linux/auxvec.h>
#include <linux/mman.h>

#include "guest/arch/cpu.h"
#include "guest/arch/trap.h"
#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/memory/user_copy.h"
#include "guest/process/copy_limit.h"
#include "guest/process/extended_state.h"
#include "guest/process/file_mapping.h"
#include "guest/process/helper.h"
#include "guest/process/initial_stack.h"
#include "guest/process/memory_limits.h"
#include "guest/process/process_table.h"
#include "guest/process/signal.h"
#include "guest/process/vdso.h"

namespace dbos {
namespace {

const BootInformation* boot_of_program = nullptr;
ProgramLayout layout;

// Linux's randomization of x86-64 (arch/x86/mm/mmap.c, fs/binfmt_elf.c), in bits of pages.
constexpr u32 kMappingRandomBits = 28;
constexpr u32 kStackRandomBits = 22;
constexpr u32 kBreakRandomBits = 13;
constexpr u64 kProgramBase = align_down(kProgramEnd / 3 * 2, kPageSize);  // ELF_ET_DYN_BASE
constexpr u64 kStackGapMin = 128 * kMiB;

[[noreturn]] void fail(const char* what, Error error) {
  LogLine()
      .text("can't start the program: ")
      .text(what)
      .text(", errno ")
      .number(error.code())
      .send(LogSeverity::kError);
  hypercall(Service::kExit, 125);
  DBOS_PANIC("the host came back from exit");
}

// xorshift64*, seeded by the host's random bytes: for addresses only.
class Random {
 public:
  explicit Random(const BootInformation& boot)
      : enabled_((boot.flags & kBootNoRandomization) == 0) {
    __builtin_memcpy(&state_, boot.seed, sizeof state_);
    state_ |= 1;
  }
  // A number of bytes: 0 .. 2^bits - 1 pages.
  u64 pages(u32 bits) {
    if (!enabled_) return 0;
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return (state_ * 0x2545f4914f6cdd1d >> (64 - bits)) * kPageSize;
  }

 private:
  u64 state_;
  bool enabled_;
};

struct Image {
  u64 bias;  // what is added to linked addresses
  u64 end;   // of the highest segment
};

u64 linked_end(const LoadImage& image) {
  const LoadSegment& last = image.segments[image.segment_count - 1];
  return align_up(last.address + last.memory_size, kPageSize);
}

// The file's part of a segment, and zeros behind it.
Result<void> map_segment(AddressSpace& space, const LoadSegment& segment, u64 bias,
                         const FileMapping& file) {
  const u64 begin = bias + segment.address;
  const u64 file_end = align_up(begin + segment.file_size, kPageSize);
  const u64 end = align_up(begin + segment.memory_size, kPageSize);
  const int protection = static_cast<int>(segment.protection);
  if (segment.file_size != 0) {
    const WindowMapping mapping{file.object, segment.file_offset, false, true};
    DBOS_TRY(space.map_window(VirtualAddress(begin), file_end - begin, protection,
                              MAP_PRIVATE | MAP_FIXED, mapping));
    const bool has_tail = segment.memory_size > segment.file_size && (protection & PROT_WRITE) != 0;
    const u64 tail = begin + segment.file_size;
    if (has_tail) DBOS_RETURN_IF_ERROR(clear_program(VirtualAddress(tail), file_end - tail));
  }
  if (end > file_end) {
    DBOS_TRY(space.map_anonymous(VirtualAddress(file_end), end - file_end, protection,
                                 MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS));
  }
  return {};
}

Result<void> map_segments(AddressSpace& space, const LoadImage& image, u64 bias, const char* path) {
  u64 file_end = 0;
  for (u32 i = 0; i < image.segment_count; ++i) {
    const LoadSegment& segment = image.segments[i];
    const u64 end = segment.file_offset + segment.file_size;
    if (segment.file_size != 0 && end > file_end) file_end = end;
  }
  const FileMapping file =
      DBOS_TRY(map_file(image.descriptor, 0, file_end, FileUse::kPrivate, path));
  Result<void> result;
  for (u32 i = 0; i < image.segment_count && result.is_ok(); ++i) {
    result = map_segment(space, image.segments[i], bias, file);
  }
  window_release(file.object);
  hypercall(__NR_close, static_cast<u64>(image.descriptor));
  return result;
}

Image map_program(AddressSpace& space, const BootInformation& boot, Random& random,
                  const char* path) {
  const LoadImage& image = boot.program;
  u64 bias = 0;
  if (image.position_independent != 0) {
    const u64 wanted = kProgramBase + random.pages(kMappingRandomBits) - image.segments[0].address;
    bias = align_down(wanted, image.alignment);
  }
  const auto result = map_segments(space, image, bias, path);
  if (result.is_error()) fail("its segments can't be mapped", result.error());
  return Image{bias, bias + linked_end(image)};
}

Image map_interpreter(AddressSpace& space, const BootInformation& boot) {
  const LoadImage& image = boot.interpreter;
  if (image.descriptor < 0) return Image{0, 0};
  u64 bias = 0;
  if (image.position_independent != 0) {
    const u64 size = linked_end(image) - image.segments[0].address;
    const auto place = space.find_free(VirtualAddress(0), size + image.alignment);
    if (place.is_error()) fail("no room for its interpreter", place.error());
    bias = align_up(place.value().value(), image.alignment) - image.segments[0].address;
  }
  const auto result = map_segments(space, image, bias, nullptr);
  if (result.is_error()) fail("its interpreter can't be mapped", result.error());
  return Image{bias, bias + linked_end(image)};
}

void lay_out(AddressSpace& space, const BootInformation& boot, u64 stack_top, Random& random) {
  u64 gap = boot.stack_size + (kProgramEnd - stack_top) + 256 * kPageSize;
  if (gap < kStackGapMin) gap = kStackGapMin;
  const u64 gap_max = kProgramEnd / 6 * 5;
  if (gap > gap_max) gap = gap_max;
  const u64 base = align_down(kProgramEnd - gap, kPageSize) - random.pages(kMappingRandomBits);
  space.set_mmap_base(VirtualAddress(align_down(base, kPageSize)));
}

void note_segments(const LoadImage& image, u64 bias) {
  for (u32 i = 0; i < image.segment_count; ++i) {
    const LoadSegment& segment = image.segments[i];
    const u64 begin = bias + segment.address;
    if ((segment.protection & PROT_EXEC) != 0) {
      layout.code_start = begin;
      layout.code_end = begin + segment.file_size;
    }
    layout.data_start = begin;
    layout.data_end = begin + segment.file_size;
  }
}

Thread& make_first_thread(AddressSpace& space, const BootInformation& boot) {
  const auto process = create_process(space, nullptr);
  if (process.is_error()) fail("no memory", process.error());
  const HypercallPage& page = current_hypercall_page();
  Thread& thread = current_thread();
  thread.process = process.value();
  thread.space = &space;
  thread.thread_id = static_cast<i32>(page.thread_id);
  process.value()->process_id = static_cast<i32>(page.process_id);
  link_thread(*process.value(), thread);
  initialize_signals(*process.value(), thread, boot);
  arch::activate_space(space);
  return thread;
}

}  // namespace

const BootInformation& started_program() {
  return *boot_of_program;
}
const ProgramLayout& program_layout() {
  return layout;
}

void start_program(const BootInformation& boot) {
  boot_of_program = &boot;
  Random random(boot);
  const auto created = AddressSpace::create(kernel_root());
  if (created.is_error()) fail("no memory", created.error());
  AddressSpace& space = *created.value();
  Thread& thread = make_first_thread(space, boot);

  const u64 stack_top = kProgramEnd - random.pages(kStackRandomBits);
  lay_out(space, boot, stack_top, random);
  inherit_memory_limits(*thread.process);
  const auto* const strings = reinterpret_cast<const char*>(&boot);
  const Image program = map_program(space, boot, random, strings + boot.executable_path_offset);
  const u64 break_start = program.end + random.pages(kBreakRandomBits);
  space.set_brk_start(VirtualAddress(break_start));
  const Image interpreter = map_interpreter(space, boot);
  note_segments(boot.program, program.bias);
  layout.brk_start = break_start;

  StackImage stack;
  stack.top = stack_top;
  stack.program_headers =
      boot.program.program_headers == 0 ? 0 : program.bias + boot.program.program_headers;
  stack.entry = program.bias + boot.program.entry;
  stack.interpreter_base = interpreter.bias;
  stack.vdso = map_vdso(space);
  const auto stack_pointer = write_initial_stack(space, boot, stack, layout);
  if (stack_pointer.is_error()) fail("its stack can't be made", stack_pointer.error());

  auto& shared = *static_cast<BootInformation*>(
      platform::direct_map(PhysicalAddress(kBootInformationAddress)));
  shared.auxiliary_begin = layout.auxiliary_start;
  shared.auxiliary_end = layout.auxiliary_end;

  const bool has_interpreter = boot.interpreter.descriptor >= 0;
  TrapFrame& frame = arch::top_frame();
  frame = {};
  frame.rip = has_interpreter ? interpreter.bias + boot.interpreter.entry : stack.entry;
  frame.rsp = stack_pointer.value();
  frame.cs = arch::kCodeSelector;
  frame.ss = arch::kDataSelector;
  frame.rflags = kFlagInterrupt | 2;
  thread.frame = &frame;
  reset_extended_state();
  prepare_helper(*thread.process, boot);
  prepare_copy_limit(boot);
  arch::return_to_program(frame);
  arch::resume_program(&frame);
}

}  // namespace dbos
