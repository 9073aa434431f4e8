// The KVM API: the only place that includes <linux/kvm.h>.
//
// Debian 12's header declares flexible arrays through an empty struct, whose size is 0 in C and 1
// in C++, so that sizeof(kvm_cpuid2), and with it the ioctl numbers made from such sizes, come out
// wrong in C++. The macro is mended here, and the numbers are pinned.
#pragma once

#include <asm/unistd.h>
#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <linux/kvm.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "vmm/host/host_call.h"

static_assert(sizeof(kvm_cpuid2) == 8);
static_assert(KVM_GET_SUPPORTED_CPUID == 0xc008ae05);
static_assert(KVM_SET_CPUID2 == 0x4008ae90);
static_assert(KVM_RUN == 0xae80);
static_assert(KVM_SET_USER_MEMORY_REGION == 0x4020ae46);

namespace dbos::vmm {

// A request to /dev/kvm, a virtual machine or a vCPU. Its result, or -errno.
inline int64_t kvm_call(int descriptor, unsigned long request, void* argument = nullptr) {
  return raw_call(__NR_ioctl, static_cast<uint64_t>(descriptor), request,
                  reinterpret_cast<uint64_t>(argument));
}

}  // namespace dbos::vmm
