// dbos-run: runs a program in guest ring 0.
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "vmm/error.h"
#include "vmm/exit_status.h"
#include "vmm/loader/boot_information.h"
#include "vmm/loader/find_program.h"
#include "vmm/loader/load_error.h"
#include "vmm/loader/load_program.h"
#include "vmm/log.h"
#include "vmm/machine/clock.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/regions.h"
#include "vmm/machine/ring_check.h"
#include "vmm/options.h"
#include "vmm/process/host_process.h"
#include "vmm/process/signals.h"
#include "vmm/process/statistics.h"
#include "vmm/process/steward.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

int print_ring_check() {
  // Never freed, here and below: other processes and threads use it until the very end.
  auto* const machine = new Machine(kArenaChunkSize);
  set_machine(*machine);
  Vcpu& vcpu = adopt_first_thread(*machine);
  const RingCheck check = check_ring(*machine, vcpu);
  fmt::print("ring 0 instruction: {:.2f} ns ({})\n", check.instruction_ns,
             check.is_native() ? "runs natively" : "is interpreted");
  fmt::print("hypercall and back: {:.0f} ns\n", check.exit_ns);
  fmt::print("extended state (XCR0): {:#x}\n", machine->extended_state_mask());
  fmt::print("vCPUs: at most {}\n", kVcpuCountMax);
  if (check.is_native()) return 0;
  fmt::print("{}\n", interpreted_message(check));
  return static_cast<int>(ExitStatus::kFailure);
}

uint64_t boot_flags(const Options& options) {
  uint64_t flags = 0;
  if (options.trace) flags |= kBootTraceCalls;
  if (!options.large_pages) flags |= kBootNoLargePages;
  return flags;
}

bool uses_tsc(ClockSource clock) {
  if (clock == ClockSource::kAutomatic) return is_trusted(check_tsc());
  return clock == ClockSource::kTsc;
}

// Makes the arena's first bytes present before the program starts.
void prefault(Machine& machine, uint64_t size) {
  for (uint64_t done = 0; done < size; done += kArenaChunkSize) {
    const int64_t usable = machine.grow_arena(done / kArenaChunkSize);
    if (usable < 0) throw StartError("not enough memory for --prefault: ask for less");
    populate_arena(kArenaBase + done, std::min(size - done, static_cast<uint64_t>(usable)));
  }
}

[[noreturn]] void run_program(const Options& options) {
  const InheritedSignals inherited = inherited_signals();
  const FoundProgram found = find_program(options.command.front(), std::getenv("PATH"));
  LoadedProgram program = load_program(found.real_path);
  if (options.statistics) enable_statistics(options.statistics_file);
  auto* const machine = new Machine(options.memory_size);
  set_machine(*machine);
  Vcpu& vcpu = adopt_first_thread(*machine);
  const RingCheck check = check_ring(*machine, vcpu);
  if (!check.is_native()) throw StartError(interpreted_message(check));
  machine->check_cpu();
  if (machine->reset_vcpu(vcpu, 0) < 0) throw StartError::with_errno("KVM can't start a vCPU");
  prefault(*machine, options.prefault_size);
  if (uses_tsc(options.clock)) start_clock(*reinterpret_cast<ClockPage*>(kClockPageAddress));

  const std::vector<std::string> environment =
      merge_environment(environ, std::span(options.environment));
  MachineParameters parameters;
  parameters.vcpu_count_max = kVcpuCountMax;
  parameters.arena_size_max = machine->arena_size_max();
  parameters.kernel_tables = machine->kernel_root();
  parameters.extended_state_mask = machine->extended_state_mask();
  parameters.flags = boot_flags(options);
  const ProgramStart start{options.command, environment, found.real_path, found.execution_name};
  const std::span destination(reinterpret_cast<std::byte*>(kBootInformationAddress),
                              kBootInformationSizeMax);
  write_boot_information(destination, program, start, parameters);
  auto* const boot = reinterpret_cast<BootInformation*>(kBootInformationAddress);
  boot->ignored_signals = inherited.ignored;
  boot->blocked_signals = inherited.blocked;
  program.hand_over_descriptors();
  keep_log_descriptor();
  // What ps and top show, as execve sets it.
  prctl(PR_SET_NAME, std::filesystem::path(found.execution_name).filename().c_str());
  vcpu.program_mask.store(inherited.blocked);
  install_handlers(vcpu.process->signals, inherited.ignored);
  set_parent_death_hook(take_parent_death_notice);
  start_steward(*vcpu.process);
  run_vcpu(vcpu);
}

int run(std::span<const std::string> arguments) {
  const Options options = parse_options(arguments, host_memory_size());
  switch (options.action) {
    case Action::kPrint:
      fmt::print("{}", options.text);
      return 0;
    case Action::kRingCheck:
      return print_ring_check();
    case Action::kRun:
      run_program(options);
  }
  return static_cast<int>(ExitStatus::kFailure);
}

}  // namespace
}  // namespace dbos::vmm

int main(int argc, char** argv) {
  using dbos::vmm::ExitStatus;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    return dbos::vmm::run(arguments);
  } catch (const dbos::vmm::LoadError& error) {
    dbos::vmm::write_log_line(error.what());
    return static_cast<int>(error.status());
  } catch (const std::exception& error) {
    dbos::vmm::write_log_line(error.what());
    return static_cast<int>(ExitStatus::kFailure);
  }
}
