// dbos-run: runs a program in guest ring 0.
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "tools/standard_output.h"
#include "vmm/control/control_server.h"
#include "vmm/control/debugger.h"
#include "vmm/debug/crash_report.h"
#include "vmm/debug/disassemble.h"
#include "vmm/debug/gdb_server.h"
#include "vmm/debug/stop.h"
#include "vmm/error.h"
#include "vmm/exit_status.h"
#include "vmm/host_memory.h"
#include "vmm/loader/boot_information.h"
#include "vmm/loader/find_program.h"
#include "vmm/loader/kernel_file.h"
#include "vmm/loader/load_error.h"
#include "vmm/loader/load_program.h"
#include "vmm/log.h"
#include "vmm/machine/clock.h"
#include "vmm/machine/kernel_image.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/regions.h"
#include "vmm/machine/ring_check.h"
#include "vmm/observe/observation.h"
#include "vmm/options.h"
#include "vmm/process/host_process.h"
#include "vmm/process/signals.h"
#include "vmm/process/statistics.h"
#include "vmm/process/vcpu_thread.h"
#include "vmm/proxy/descriptor_link.h"
#include "vmm/proxy/execute.h"

namespace dbos::vmm {
namespace {

KernelImage built_in_image() {
  return parse_kernel_image(built_in_kernel(), "the built-in guest kernel");
}

int print_ring_check() {
  // Never freed, here and below: other processes and threads use it until the very end.
  auto* const machine = new Machine(kArenaChunkSize, HostPages::kSmall, built_in_image());
  set_machine(*machine);
  Vcpu& vcpu = adopt_first_thread();
  const RingCheck check = check_ring(vcpu);
  fmt::print("ring 0 instruction: {:.2f} ns ({})\n", check.instruction_ns,
             check.is_native() ? "runs natively" : "is interpreted");
  fmt::print("hypercall and back: {:.0f} ns\n", check.exit_ns);
  fmt::print("extended state (XCR0): {:#x}\n", machine->extended_state_mask());
  fmt::print("vCPUs: at most {}\n", kVcpuCountMax);
  if (check.is_native()) {
    machine->check_cpu();
    return 0;
  }
  fmt::print("{}\n", interpreted_message(check));
  return static_cast<int>(ExitStatus::kFailure);
}

uint64_t boot_flags(const Options& options) {
  uint64_t flags = 0;
  if (!options.large_pages) flags |= kBootNoLargePages;
  if (options.cow_kill) flags |= DBOS_BOOT_COW_KILL;
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
    const int64_t result =
        usable < 0 ? usable
                   : populate_arena(kArenaBase + done,
                                    std::min(size - done, static_cast<uint64_t>(usable)));
    if (result < 0) {
      throw StartError(fmt::format("Linux does not give the {} MiB of --prefault: {}; ask for less",
                                   size / kMiB, std::strerror(static_cast<int>(-result))));
    }
  }
}

// What dbos-dbg needs to stop the program later, and gdb and the reports at once: also that the
// guest sees what the program dies by. Another guest kernel does not know how to stop.
void enable_debuggers(const Options& options, Vcpu& first) {
  if (!options.kernel.empty()) return;
  take_default_actions(kCoreSignals);
  const bool is_at_once = options.wants_gdb() || options.wants_crash_report();
  if (options.control || is_at_once) enable_debugging(first, options.wants_gdb());
  if (options.control) start_debugger();
}

void start_debugging(const Options& options) {
  if (options.crash_report && !load_disassembler()) {
    log_line(LogLevel::kWarning,
             "there is no libcapstone: --crash-report shows bytes of code only");
  }
  if (options.wants_crash_report()) set_crash_options({options.crash_report, options.core_file});
  if (options.wants_gdb()) start_gdb_server(options.gdb_address);
}

// What the guest kernel is to run: a program, or what its own arguments say.
struct Workload {
  LoadedProgram program;
  std::vector<std::string> arguments;
  std::string path;  // absolute, links resolved
  std::string name;  // as execvp would name it
};

void log_workload(const Workload& workload) {
  const std::string& interpreter = workload.program.interpreter_path;
  log_line(LogLevel::kInfo, "{} is {}", workload.path,
           interpreter.empty() ? "loaded alone" : "loaded with its interpreter " + interpreter);
  if (workload.program.privileges_ignored) {
    log_line(
        LogLevel::kWarning,
        "the set-user-ID bit or the capabilities of {} are ignored: start dbos-run as the user "
        "that it is to run as",
        workload.path);
  }
}

Workload find_workload(const Options& options, const KernelImage& kernel) {
  if (!kernel.loads_program) {
    std::vector<std::string> arguments = options.command;
    arguments.insert(arguments.begin(), options.kernel);
    return {no_program(), arguments, std::filesystem::canonical(options.kernel), options.kernel};
  }
  if (options.command.empty()) {
    throw OptionError("name the program that '" + kernel.name + "' is to run; see --help");
  }
  const FoundProgram found = find_program(options.command.front(), std::getenv("PATH"));
  return {load_program(found.real_path), options.command, found.real_path, found.execution_name};
}

// Starts the clock page if the counter can be trusted, and says what the machine offers then. The
// vCPU has run: before that KVM has not yet given it a counter of its own.
void set_clock_and_features(const Options& options, const Machine& machine, const Vcpu& vcpu,
                            MachineParameters& parameters) {
  if (!machine.has_host_tsc(vcpu)) {
    log_line(options.clock == ClockSource::kTsc ? LogLevel::kWarning : LogLevel::kInfo,
             "Linux finds the time stamp counter unstable, and KVM changes the program's: it reads "
             "the time by asking Linux");
  } else if (uses_tsc(options.clock)) {
    const ClockWriter& clock = start_clock(*reinterpret_cast<ClockPage*>(kClockPageAddress));
    if (clock.is_enabled()) parameters.features |= kFeatureClock;
    parameters.tsc_khz = clock.tsc_khz();
  }
  log_line(LogLevel::kDebug, "the program reads the time {}",
           (parameters.features & kFeatureClock) != 0 ? "from the time stamp counter"
                                                      : "by asking Linux");
  parameters.extended_state_mask = machine.extended_state_mask();
  if (parameters.extended_state_mask != 0) parameters.features |= kFeatureXsave;
}

HostPages arena_pages(const Options& options) {
  if (!options.large_pages) return HostPages::kSmall;
  if (are_large_pages_off()) {
    log_line(LogLevel::kInfo,
             "Linux gives no large pages (/sys/kernel/mm/transparent_hugepage/enabled is never): "
             "first touches and address translation cost more");
  }
  return HostPages::kLarge;
}

// Makes the machine, on the calling thread its first vCPU, and its memory; refuses what is not fit
// for a program.
Vcpu& make_machine(const Options& options, const KernelImage& kernel) {
  auto* const machine = new Machine(options.memory_size, arena_pages(options), kernel);
  set_machine(*machine);
  machine->check_cpu();
  Vcpu& vcpu = adopt_first_thread();
  log_line(LogLevel::kInfo, "the machine has at most {:.1f} GiB of memory and {} virtual CPUs",
           static_cast<double>(machine->arena_size_max()) / kGiB, kVcpuCountMax);
  const RingCheck check = check_ring(vcpu);
  log_line(LogLevel::kInfo, "ring 0: {:.2f} ns an instruction, {:.0f} ns a hypercall and back",
           check.instruction_ns, check.exit_ns);
  if (!check.is_native()) throw StartError(interpreted_message(check));
  if (const uint64_t possible = machine->arena_size_max(); possible < options.memory_size) {
    log_line(LogLevel::kWarning,
             "the program gets at most {} GiB of memory: this CPU has {} bits of physical address",
             possible / kGiB, machine->physical_address_bits());
  }
  if (const int64_t result = machine->reset_vcpu(vcpu, 0); result < 0) {
    throw StartError::with_code(static_cast<int>(-result), "KVM can't start a virtual CPU");
  }
  start_observation(vcpu);
  if (options.trace) trace_to_log(*machine);
  prefault(*machine, options.prefault_size);
  return vcpu;
}

MachineParameters machine_parameters(const Options& options, const Vcpu& vcpu) {
  MachineParameters parameters;
  parameters.vcpu_count_max = kVcpuCountMax;
  parameters.arena_size_max = machine().arena_size_max();
  parameters.kernel_tables = machine().kernel_root();
  parameters.flags = boot_flags(options);
  parameters.cow_limit = options.cow_limit;
  parameters.ready_copies = options.ready_copies;
  set_clock_and_features(options, machine(), vcpu, parameters);
  return parameters;
}

// Writes what the guest kernel reads at its start.
void write_boot(const Options& options, const Workload& workload,
                const MachineParameters& parameters, const InheritedSignals& inherited) {
  const std::vector<std::string> environment =
      merge_environment(environ, std::span(options.environment));
  const ProgramStart start{workload.arguments, environment, workload.path, workload.name};
  const std::span destination(reinterpret_cast<std::byte*>(kBootInformationAddress),
                              kBootInformationSizeMax);
  write_boot_information(destination, workload.program, start, parameters);
  auto* const boot = reinterpret_cast<BootInformation*>(kBootInformationAddress);
  boot->ignored_signals = inherited.ignored;
  boot->blocked_signals = inherited.blocked;
}

// Those that watch the program, and can stop it.
void start_servers(const Options& options, Vcpu& first) {
  // The program has its environment. libdwfl would ask servers for debug information, for minutes.
  unsetenv("DEBUGINFOD_URLS");
  enable_debuggers(options, first);
  start_control(machine(), {options.control, options.metrics});
}

[[noreturn]] void run_program(const Options& options) {
  const InheritedSignals inherited = inherited_signals();
  std::vector<std::byte> kernel_file;
  if (!options.kernel.empty()) kernel_file = read_kernel_file(options.kernel);
  const KernelImage kernel =
      options.kernel.empty() ? built_in_image() : parse_kernel_image(kernel_file, options.kernel);
  Workload workload = find_workload(options, kernel);
  log_workload(workload);
  if (options.statistics) enable_statistics(options.statistics_file);
  Vcpu& vcpu = make_machine(options, kernel);
  const MachineParameters parameters = machine_parameters(options, vcpu);
  check_features(kernel, parameters.features);
  write_boot(options, workload, parameters, inherited);
  start_servers(options, vcpu);
  keep_proc_folder();
  workload.program.hand_over_descriptors();
  // What ps and top show, as execve sets it.
  prctl(PR_SET_NAME, std::filesystem::path(workload.name).filename().c_str());
  vcpu.program_mask.store(inherited.blocked);
  start_debugging(options);
  install_handlers(vcpu.process->signals, inherited.ignored);
  set_parent_death_hook(take_parent_death_notice);
  set_own_signal_taker(take_own_signal);
  run_vcpu(vcpu);
}

void warn_of_too_much_memory(uint64_t wanted, uint64_t there) {
  const uint64_t besides = wanted / 64 + std::min(64 * kMiB, there / 16);
  if (wanted > there || besides > there - wanted) {
    log_line(LogLevel::kWarning,
             "--memory is {} MiB, and this machine or its cgroup has {}: dbos-run and files need "
             "some besides, and where all is used up Linux ends the program with its children; "
             "give less",
             wanted / kMiB, there / kMiB);
  }
  if (const uint64_t room = commit_room(); wanted > room) {
    log_line(
        LogLevel::kWarning,
        "--memory is {} MiB, but vm.overcommit_memory is 2 and Linux commits only {} MiB more: "
        "the program gets no more than that; raise vm.overcommit_ratio",
        wanted / kMiB, room / kMiB);
  }
}

// Before other constructors touch one of them.
[[gnu::constructor(101)]] void prepare_records() {
  keep_records_on_small_pages();
}

int run(std::span<const std::string> arguments) {
  keep_log_descriptor();
  const uint64_t host_memory = host_memory_size();
  const Options options = parse_options(arguments, host_memory);
  set_log_level(options.log_level);
  switch (options.action) {
    case Action::kPrint:
      fmt::print("{}", options.text);
      finish_output();
      return 0;
    case Action::kRingCheck: {
      const int status = print_ring_check();
      finish_output();
      return status;
    }
    case Action::kRun:
      warn_of_too_much_memory(options.memory_size, host_memory);
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
    dbos::vmm::write_log_line(dbos::vmm::LogLevel::kError, error.what());
    return static_cast<int>(error.status());
  } catch (const std::exception& error) {
    dbos::vmm::write_log_line(dbos::vmm::LogLevel::kError, error.what());
    return static_cast<int>(ExitStatus::kFailure);
  }
}
