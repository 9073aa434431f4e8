#include "guest/arch/debug.h"

#include <linux/mman.h>

#include <optional>

#include "guest/arch/cpu.h"
#include "guest/arch/trap.h"
#include "guest/hypercall.h"
#include "guest/memory/address_space.h"
#include "guest/memory/user_copy.h"
#include "guest/process/process_table.h"
#include "hypercall/debug.h"

namespace dbos {
namespace {

u32 debug_flags() {
  return *const_cast<const volatile u32*>(&current_hypercall_page().debug);
}

i64 call_debugger(DebugCause cause, u64 argument) {
  return hypercall(Service::kDebugStop, static_cast<u64>(cause), argument);
}

// Writes to one page of the program, with its rights set aside for that moment: no thread of the
// program runs meanwhile. A page that a snapshot or a file shares becomes the address space's own.
Result<void> write_forced(AddressSpace& space, VirtualAddress address, const void* data, u64 size) {
  const VirtualAddress page(align_down(address.value(), kPageSize));
  VmaInfo info;
  if (!space.query(page, &info)) return Error(EFAULT);
  if (info.protection.may_write()) return copy_to_program(address, data, size);
  if (info.kind == VmaKind::kWindowShared) return Error(EACCES);
  const int rights = info.protection.linux_bits();
  DBOS_RETURN_IF_ERROR(space.protect(page, kPageSize, rights | PROT_READ | PROT_WRITE));
  const Result<void> written = copy_to_program(address, data, size);
  DBOS_RETURN_IF_ERROR(space.protect(page, kPageSize, rights));
  return written;
}

void name_mapping(const VmaInfo& info, DebugMapping* mapping) {
  static_assert(sizeof mapping->path == sizeof info.path);
  if (info.name != VmaName::kNone) {
    const char* const name = text_of(info.name);
    __builtin_memcpy(mapping->path, name, __builtin_strlen(name) + 1);
  } else if (info.kind != VmaKind::kAnonymous) {
    __builtin_memcpy(mapping->path, info.path, sizeof info.path);
  }
}

u32 flags_of(const VmaInfo& info) {
  const u32 shared = info.kind == VmaKind::kWindowShared ? kMappingShared : 0;
  return shared | (info.flags.has(VmaFlag::kDontDump) ? kMappingDontDump : 0);
}

// Returns the bytes of whole DebugMappings.
u64 list_mappings(AddressSpace& space, const DebugRequest& request, u8* data) {
  u64 done = 0;
  VmaInfo info;
  VirtualAddress from(request.address);
  for (; done + sizeof(DebugMapping) <= request.length; from = info.range.end) {
    if (!space.next_vma(from, &info)) return done;
    auto& mapping = *reinterpret_cast<DebugMapping*>(data + done);
    mapping = {info.range.begin.value(), info.range.end.value(),
               info.file.offset,         static_cast<u32>(info.protection.linux_bits()),
               flags_of(info),           {}};
    name_mapping(info, &mapping);
    done += sizeof mapping;
  }
  return done;
}

u64 perform(AddressSpace& space, const DebugRequest& request, u8* data) {
  if (request.operation == DebugOperation::kMappings) return list_mappings(space, request, data);
  u64 done = 0;
  while (done < request.length) {
    const VirtualAddress address(request.address + done);
    const u64 in_page = kPageSize - address.value() % kPageSize;
    const u64 left = request.length - done;
    const u64 size = left < in_page ? left : in_page;
    const auto result = request.operation == DebugOperation::kWrite
                            ? write_forced(space, address, data + done, size)
                            : copy_from_program(data + done, address, size);
    if (result.is_error()) return done;
    done += size;
  }
  return done;
}

}  // namespace

namespace arch {

bool stop_for_debugger(TrapFrame& frame) {
  const u32 flags = debug_flags();
  if (flags == 0) return false;
  if ((flags & kDebugStopWanted) != 0) {
    (void)call_debugger(DebugCause::kWanted, 0);
    return true;
  }
  // A step over `syscall`, which takes the trap flag out of rflags: it ends here.
  const bool was_stepped = (flags & kDebugTraps) != 0 && frame.vector == kSystemCallVector &&
                           (frame.rflags & kFlagTrap) != 0;
  if (!was_stepped) return false;
  frame.vector = kRestoredVector;
  return call_debugger(DebugCause::kTrap, kDebug) == kDebugTaken;
}

bool is_debugger_trap(const TrapFrame& frame) {
  const bool may_be = frame.vector == kDebug || frame.vector == kBreakpoint;
  if (!may_be || (debug_flags() & kDebugTraps) == 0) return false;
  return call_debugger(DebugCause::kTrap, frame.vector) == kDebugTaken;
}

bool is_debug_agent() {
  return (debug_flags() & kDebugAgent) != 0;
}

void run_debug_agent() {
  auto* const request =
      reinterpret_cast<DebugRequest*>(cpu_block(current_cpu().index) + kVcpuBounceOffset);
  const DebugRequest wanted = *request;
  Thread& self = current_thread();
  std::optional<SharedSpace> shared;
  // The process may end from here on (SIGKILL), but the address space stays.
  visit_process(static_cast<i32>(wanted.process_id), [&](Process& process) {
    shared.emplace(process);
    self.process = &process;
  });
  request->done = 0;
  if (shared) {
    self.space = &shared->space();
    activate_space(shared->space());
    request->done = perform(shared->space(), wanted, reinterpret_cast<u8*>(request + 1));
    leave_space(kernel_root());
    shared->drop();
  }
  hypercall(Service::kThreadExit, 0);
  __builtin_unreachable();
}

}  // namespace arch
}  // namespace dbos
