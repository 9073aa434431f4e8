// Stopping and inspecting the program: what dbos-dbg and the gdb server stand on.
//
// One debugger at a time is attached to the program's first process; the processes that it forks
// run on by themselves, without the debugger's breakpoints in their memory. (A child of vfork,
// which runs in the first process's memory, counts as a thread of it until it executes a program.)
//
// How a thread stops: its attention is asked for (vmm/process/attention.h), and before it goes on
// in the program the guest kernel calls Service::kDebugStop, in which its host thread waits
// (hypercall/debug.h). No host call is interrupted or restarted: a thread that is in one stays
// there, counts as stopped, and is held when it comes back. A held thread has no lock of the guest
// kernel, and takes no part in TLB shootdowns, so single threads can go on while others are held.
//
// A debugger that dies (its thread's id is gone) is detached from by the threads that it holds,
// within a second.
//
// Threads: enable_debugging() is called before the first vCPU runs. All other functions of the
// first part are for the one host thread that has attached, a thread of the first process with all
// signals blocked; they may block for as long as their description says. The second part is the run
// loop's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hypercall/abi.h"
#include "vmm/debug/breakpoints.h"
#include "vmm/debug/registers.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

enum class StopCause : uint32_t {
  kNone,
  kRequested,   // stop_all(), or a first instruction
  kBreakpoint,  // at Registers::general.rip, which is the breakpoint's address
  kHardwareBreakpoint,
  kWatchpoint,  // `address` was accessed; rip is behind the instruction
  kStep,
  kSignal,  // `signal` is about to be delivered
};

enum class ThreadPlace : uint32_t {
  kRunning,
  kHeld,    // stopped on its way to the program
  kInCall,  // in a host call, which goes on; held as soon as it comes back
};

struct StopEvent {
  uint32_t vcpu;
  StopCause cause;
  int signal;        // of kSignal
  uint64_t address;  // of kWatchpoint
};

struct ThreadView {
  uint32_t vcpu;
  uint32_t thread_id;  // Linux's
  uint32_t process_id;
  ThreadPlace place;
  uint32_t call_number;  // of kInCall: Linux's, or a Service; 0: none
};

// How the process ended, as wait(2) tells it.
struct ProcessEnd {
  bool by_signal;
  int status;  // exit status or signal
};

enum class Run { kStay, kContinue, kStep };

// What one thread shall do. `signal`: what the program gets; 0: none, kOwnSignal: what it stopped
// for, if that was a signal.
inline constexpr int kOwnSignal = -1;
struct ThreadRun {
  uint32_t vcpu;
  Run run;
  int signal;
};

// ---- Attaching ----

// Makes debugging possible in this dbos-run: descriptor and tables. Throws StartError. Once, before
// the first vCPU runs, with the first thread's vCPU. `stop_first`: it stops before its first
// instruction, and waits there for a debugger.
void enable_debugging(Vcpu& first, bool stop_first);

// Becomes the debugger of the calling host thread. `who` names it for others ("gdb at :1234").
// Result: empty, or a sentence that says who is attached already or why it can't be. Does not stop
// the program.
std::string attach_debugger(const std::string& who);

// Takes the breakpoints out of the program's memory and lets every thread go on. Blocks until the
// threads are at rest for that, 2 s at most. No effect when the caller is not attached.
void detach_debugger();

// Who is attached; empty: nobody. Any thread may ask.
std::string attached_debugger();

// ---- Stopping and going on ----

// Stops all threads and waits until each is held or in a host call. False after `timeout_ms`: a
// thread stays in the guest kernel.
bool stop_all(uint32_t timeout_ms = 5000);
inline constexpr const char* kCantStop =  // for people
    "the program can't be stopped: a thread stays in the guest kernel";

// Whether all threads are at rest: the last stop_all() succeeded and resume() was not called since.
bool is_stopped();

// Lets threads go on. Those that `threads` does not name do `others`, with their own signals. Does
// nothing when one of those that shall go on has hit a watchpoint or got a signal that was not
// reported yet: take_event() answers it. A thread at a software breakpoint is stepped over it
// first, alone.
void resume(std::span<const ThreadRun> threads, Run others);

// A descriptor that poll(2) finds readable when take_event(), process_end() or serve_children() has
// something to do.
int debug_event_descriptor();
// To be called before them when it is readable.
void clear_debug_event();

// The next stop that was not reported yet; empty: none. The other threads run on: call stop_all().
// What a thread stopped for that the last resume() left as it was waits until one lets it go.
std::optional<StopEvent> take_event();

// How the first process is going to end, once it is; it waits for detach_debugger(), 2 s at most.
std::optional<ProcessEnd> process_end();

// Takes the breakpoints out of children that were forked with them, and lets them go on.
void serve_children();

// ---- Looking, while stopped ----

std::vector<ThreadView> debugged_threads();

// Of these the one on a vCPU; nothing: there is none.
inline std::optional<ThreadView> thread_on(uint32_t vcpu) {
  for (const ThreadView& view : debugged_threads()) {
    if (view.vcpu == vcpu) return view;
  }
  return std::nullopt;
}
// The vCPU of the thread with this id, or of any.
inline std::optional<uint32_t> vcpu_of_thread(std::optional<uint64_t> thread_id) {
  for (const ThreadView& view : debugged_threads()) {
    if (!thread_id || view.thread_id == *thread_id) return view.vcpu;
  }
  return std::nullopt;
}

// Result: false: no such thread, or it runs. Blocks while a thread comes back from a host call, 5 s
// at most.
bool read_registers(uint32_t vcpu, Registers* registers);
// Only of a held thread: false otherwise. General registers but cs, ss and vector; the bases; the
// extended state, whose size must fit what the processor has.
bool write_registers(uint32_t vcpu, const Registers& registers);

// What the guest kernel does for a thread that is held or in a host call: its instruction and frame
// pointer. False: unknown, this process has not the vCPU's descriptor.
struct KernelPlace {
  uint64_t instruction;
  uint64_t frame_pointer;
};
bool read_kernel_place(uint32_t vcpu, KernelPlace* place);

// Bytes of the program's memory at `address`, as many as can be read; breakpoints do not show.
// Pages that are not there yet (of files) become present, as for Linux's ptrace.
size_t read_program(uint64_t address, void* destination, size_t size);
// ... without making anything present: also the guest kernel's memory.
size_t read_present(uint64_t address, void* destination, size_t size);
// Of a byte that could not be read so: how many bytes from there on, in whole pages, are not there
// by the page table either.
uint64_t absent_from(uint64_t address);
// Also where the program may not write (ptrace's POKE): pages that a file or a snapshot shares
// become the process's own. Bytes written, from the start on. Breakpoints stay in place.
size_t write_program(uint64_t address, const void* source, size_t size);

// The auxiliary vector that the program started with, as it lies in its memory; empty: unreadable.
std::vector<uint8_t> read_auxiliary_vector();
struct AddressRange {
  uint64_t begin;
  uint64_t end;
};
AddressRange auxiliary_vector_range();  // empty until the program has started
// Its mappings, by address, as /proc/self/maps lists them.
std::vector<DebugMapping> program_mappings();
// The program's file: an absolute path without links.
std::string program_path();
// The features that the vCPUs' extended state has, as in XCR0.
uint64_t extended_state_features();

// ---- Breakpoints, while stopped ----

// Why not; an empty text: it is done.
struct BreakpointError {
  std::string text;
  bool no_debug_registers = false;  // the reason is that this machine's do not work
};

// `length`: of a watchpoint, 1, 2, 4 or 8 and `address` a multiple of it.
BreakpointError insert_breakpoint(BreakpointKind kind, uint64_t address, uint64_t length);
BreakpointError remove_breakpoint(BreakpointKind kind, uint64_t address, uint64_t length);

// ---- For the run loop: called by the host threads of vCPUs ----

// Whether debugging is enabled at all: one relaxed load.
bool is_debugging_enabled();

// Service::kDebugStop. Blocks while the debugger wants it.
int64_t hold_for_debugger(Vcpu& vcpu, const Call& call);

// A vCPU of a new thread, or of a new process that shares its creator's memory or not; not running
// yet.
enum class Birth { kThread, kSharingProcess, kProcess };
void prepare_debugging(Vcpu& vcpu, const Vcpu& creator, Birth birth);
// Then by its own host thread, before it enters the guest.
void begin_debugging(Vcpu& vcpu);

// KVM_EXIT_DEBUG: a hardware breakpoint or a step.
void note_debug_exit(Vcpu& vcpu);

// The first process is about to end. Blocks until the debugger knows, 2 s at most.
void tell_process_end(const Vcpu& vcpu, ProcessEnd end);

}  // namespace dbos::vmm
