#include "vmm/debug/exit_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "hypercall/abi.h"
#include "vmm/kvm/kvm_api.h"

namespace dbos::vmm {
namespace {

std::string format_internal_error(const kvm_run& run) {
  std::string text = fmt::format("KVM's internal error {}:", run.internal.suberror);
  const uint32_t count =
      std::min<uint32_t>(run.internal.ndata, static_cast<uint32_t>(std::size(run.internal.data)));
  for (uint32_t i = 0; i < count; ++i) {
    text += fmt::format(" {:#x}", run.internal.data[i]);
  }
  return text + "\n";
}

// What the exit reason's own part of the structure tells.
std::string format_details(const kvm_run& run) {
  switch (run.exit_reason) {
    case KVM_EXIT_MMIO:
      return fmt::format("no memory at guest-physical address {:#x}\n",
                         uint64_t{run.mmio.phys_addr});
    case KVM_EXIT_IO:
      if (run.io.port == kHypercallPort) return {};
      return fmt::format("access to port {:#x}\n", uint32_t{run.io.port});
    case KVM_EXIT_FAIL_ENTRY:
      return fmt::format("the processor refused the guest's state: {:#x} (processor {})\n",
                         uint64_t{run.fail_entry.hardware_entry_failure_reason},
                         uint32_t{run.fail_entry.cpu});
    case KVM_EXIT_UNKNOWN:
      return fmt::format("KVM does not know the processor's exit reason {:#x}\n",
                         uint64_t{run.hw.hardware_exit_reason});
    case KVM_EXIT_EXCEPTION:
      return fmt::format("exception {}, error code {:#x}\n", uint32_t{run.ex.exception},
                         uint32_t{run.ex.error_code});
    case KVM_EXIT_INTERNAL_ERROR:
      return format_internal_error(run);
    case KVM_EXIT_SHUTDOWN:
      return "a triple fault; AMD's processors have reset the registers by then\n";
    default:
      return {};
  }
}

}  // namespace

std::string format_exit(const kvm_run& run, int64_t result) {
  // The rest is of the exit before, then.
  if (result < 0) {
    const int error = static_cast<int>(-result);
    return fmt::format("KVM_RUN failed with errno {} ({})\n", error, std::strerror(error));
  }
  return fmt::format("KVM exit reason {}\n", run.exit_reason) + format_details(run);
}

}  // namespace dbos::vmm
