#include "vmm/debug/exit_text.h"

#include <catch2/catch.hpp>
#include <cerrno>

#include "vmm/kvm/kvm_api.h"

namespace dbos::vmm::test {

TEST_CASE("A refused run says by which error") {
  kvm_run run = {};
  run.exit_reason = KVM_EXIT_IO;
  CHECK(format_exit(run, -ENOMEM) == "KVM_RUN failed with errno 12 (Cannot allocate memory)\n");
}

TEST_CASE("What KVM knows about an exit is told") {
  kvm_run run = {};
  run.exit_reason = KVM_EXIT_FAIL_ENTRY;
  run.fail_entry.hardware_entry_failure_reason = 0x80000021;
  run.fail_entry.cpu = 3;
  CHECK(format_exit(run, 0) ==
        "KVM exit reason 9\nthe processor refused the guest's state: 0x80000021 (processor 3)\n");
  run.exit_reason = KVM_EXIT_MMIO;
  run.mmio.phys_addr = 0xfee00000;
  CHECK(format_exit(run, 0) ==
        "KVM exit reason 6\nno memory at guest-physical address 0xfee00000\n");
  run.exit_reason = KVM_EXIT_EXCEPTION;
  run.ex.exception = 17;
  run.ex.error_code = 0;
  CHECK(format_exit(run, 0) == "KVM exit reason 1\nexception 17, error code 0x0\n");
  run.exit_reason = KVM_EXIT_HLT;
  CHECK(format_exit(run, 0) == "KVM exit reason 5\n");
}

TEST_CASE("The data of an internal error is told, no more than there is room for") {
  kvm_run run = {};
  run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run.internal.suberror = 3;
  run.internal.ndata = 2;
  run.internal.data[0] = 0x80000021;
  run.internal.data[1] = 7;
  CHECK(format_exit(run, 0) == "KVM exit reason 17\nKVM's internal error 3: 0x80000021 0x7\n");
  run.internal.ndata = 1000;
  CHECK(format_exit(run, 0).size() < 200);
}

}  // namespace dbos::vmm::test
