// What is said, and written, when the program dies by a signal that dumps core.
#pragma once

#include <csignal>
#include <cstdint>
#include <string>

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

struct CrashOptions {
  bool report = false;    // a page on standard error
  std::string core_file;  // where to write an ELF core; empty: nowhere
};

// signal(7): those with the default action "Core". See take_default_actions() (signals.h).
inline constexpr uint64_t kCoreSignals =
    signal_bit(SIGQUIT) | signal_bit(SIGILL) | signal_bit(SIGABRT) | signal_bit(SIGFPE) |
    signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGTRAP) | signal_bit(SIGSYS) |
    signal_bit(SIGXCPU) | signal_bit(SIGXFSZ);
constexpr bool dumps_core(int signal) {
  return signal >= 1 && signal <= static_cast<int>(kSignalCount) &&
         (kCoreSignals & signal_bit(static_cast<uint32_t>(signal))) != 0;
}

// Debugging must be enabled (stop.h). Once, before the first vCPU runs. Throws StartError where the
// core can't be written as things are.
void set_crash_options(const CrashOptions& options);

// The first process is about to die by `signal`: does what the options say if that dumps core. To
// be called by the thread that dies, from its Service::kDie. Nothing happens while a debugger is
// attached, which sees for itself.
void handle_crash(Vcpu& vcpu, int signal);

// Writes a core of the stopped program to a file in place of what is in it, and closes the file,
// which is a kept one (keep_descriptor.h). `signal`: what it dies by, 0: it lives; `vcpu`: whose
// thread comes first. Result: empty, or what failed. The caller is the attached debugger (stop.h).
std::string write_core_into(int kept, uint32_t vcpu, int signal);

}  // namespace dbos::vmm
