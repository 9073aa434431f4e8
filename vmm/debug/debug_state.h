// What the debugger's thread and the threads that it holds share. Internal to vmm/debug/.
//
// All of it is guarded by DebugState::lock but for what is atomic. The lock is a HostLock, because
// a child of vfork is a process of its own, which may be killed with it: each change under it is a
// few stores that are sound to do again.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hypercall/debug.h"
#include "vmm/debug/breakpoints.h"
#include "vmm/debug/registers.h"
#include "vmm/debug/stop.h"
#include "vmm/host/host_lock.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

struct HostProcess;

// Of the thread on one vCPU.
struct ThreadStop {
  bool is_debugged;      // a thread of the process that is debugged
  bool is_scrubbed;      // a forked child: the breakpoints are to be taken out of its memory
  bool is_wanted;        // stop_all() asked for it
  bool is_first;         // stands before the program's first instruction, whoever is attached
  bool is_stepping;      // the trap flag is set
  bool steps_to_return;  // a step that ends when the system call returns
  StopCause exit_cause;  // of a KVM_EXIT_DEBUG that is to be reported; kNone: none
  uint64_t exit_address;
  uint64_t debug_registers;  // the version of DebugState::hardware that this vCPU has; 0: none

  std::atomic<uint32_t> held;
  std::atomic<uint32_t> go;  // futex: 1: on
  StopCause cause;           // while held
  int signal;
  int signal_to_come;  // that the debugger sent: not asked about again; 0: none
  uint64_t address;
  bool is_reported;
  bool stays;       // others went on without it: what it stopped for is told when it has its turn
  int64_t result;   // of Service::kDebugStop
  bool is_changed;  // `registers`, but for the frame: to be set in the vCPU
  Registers registers;  // while held; the frame itself is in the guest's memory
};

struct DebugState {
  constexpr explicit DebugState(std::span<ThreadStop, kVcpuCountMax> all) : threads(all) {}

  HostLock lock;
  std::atomic<bool> is_enabled{false};
  std::atomic<uint32_t> owner{0};  // the debugger's host thread; 0: nobody is attached
  // Threads stop for the owner: not before it has marked them, nor since it let them go for good.
  std::atomic<bool> holds{false};
  std::array<char, 128> who{};
  int event = -1;  // eventfd; every process has it, because all are forked after it was made
  bool is_stopped = false;
  bool keeps_others = false;       // the last resume() let none go but those that it named
  HostProcess* process = nullptr;  // the first

  std::vector<SoftwareBreakpoint> software;
  std::array<std::optional<HardwareBreakpoint>, kDebugRegisters> hardware;
  uint64_t hardware_version = 0;  // 0: none was ever set

  std::optional<ProcessEnd> end;
  std::atomic<uint32_t> end_known{0};  // futex: 1: the process may end

  std::span<ThreadStop, kVcpuCountMax> threads;  // by vCPU
};

DebugState& debug_state();

inline ProgramFrame& program_frame(uint32_t vcpu) {
  return *reinterpret_cast<ProgramFrame*>(program_frame_address(vcpu));
}

// A host thread runs it for a thread of the program.
bool is_live(const Vcpu& vcpu);
// Whether it is neither in the program nor about to be.
bool is_at_rest(const Vcpu& vcpu);
// Waits until it is, or has ended. False: neither in that time.
bool wait_until_at_rest(const Vcpu& vcpu, uint32_t timeout_ms);

void set_debug_flags(Vcpu& vcpu, uint32_t to_clear, uint32_t to_set);
void notify_debugger();

// visit(Vcpu&, ThreadStop&) for each thread of the program that is there: since its life began. It
// does in begin_debugging() what it missed before.
template <typename Visit>
void for_each_debugged(Visit visit) {
  for (Vcpu& vcpu : vcpus()) {
    ThreadStop& stop = debug_state().threads[vcpu.index];
    if (stop.is_debugged && is_live(vcpu)) visit(vcpu, stop);
  }
}
bool is_any_debugged();

// The software breakpoint at an address; null: none.
const SoftwareBreakpoint* software_breakpoint_at(uint64_t address);
// Writes one byte to the process's memory. Returns whether it could.
bool write_breakpoint_byte(const HostProcess& process, uint64_t address, uint8_t byte);
// Puts all original bytes back there; the breakpoints stay in the list.
void take_out_breakpoints(const HostProcess& process);

// Waits for the children that are being forked with the breakpoints in their memory, and takes them
// out there: 2 s at most.
void serve_last_children();

// Clears the trap flag, with what belongs to it. With the lock.
void disarm_step(uint32_t vcpu);

// Reads what of the registers KVM keeps. False: this process has not the vCPU's descriptor.
bool load_special_registers(const Vcpu& vcpu, Registers* registers);
void store_special_registers(const Vcpu& vcpu, const Registers& registers);
// KVM_SET_GUEST_DEBUG, by the vCPU's own thread.
void load_debug_registers(const Vcpu& vcpu, ThreadStop& stop);
void clear_debug_registers(const Vcpu& vcpu, ThreadStop& stop);
void watch_instruction(const Vcpu& vcpu, uint64_t address);

// Reads or writes the process's memory by way of the guest kernel, up to what its rights or the
// mapping end. The debugger's thread; all of the program's threads must be at rest. What is
// debugged is named by DebugState::process: a child of vfork that shares its memory may leave it
// meanwhile.
size_t transfer_by_agent(DebugOperation operation, const HostProcess& process, uint64_t address,
                         void* data, size_t size);
// Whether this machine's debug registers stop a guest: an emulated one's may not. Tried once.
bool has_debug_registers();
void release_agent();

}  // namespace dbos::vmm
