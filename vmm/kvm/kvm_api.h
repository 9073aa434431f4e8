// The only place that includes <linux/kvm.h>.
//
// Debian 12's header declares flexible arrays through an empty struct, whose size is 0 in C and 1
// in C++, so that sizeof(kvm_cpuid2), and with it the ioctl numbers made from such sizes, come out
// wrong in C++. The macro is mended here, and the numbers are pinned.
#pragma once

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <linux/kvm.h>
#pragma GCC diagnostic pop

static_assert(sizeof(kvm_cpuid2) == 8);
static_assert(KVM_GET_SUPPORTED_CPUID == 0xc008ae05);
static_assert(KVM_SET_CPUID2 == 0x4008ae90);
static_assert(KVM_GET_MSRS == 0xc008ae88);
static_assert(KVM_SET_MSRS == 0x4008ae89);
static_assert(KVM_GET_MSR_INDEX_LIST == 0xc004ae02);
static_assert(KVM_SET_SIGNAL_MASK == 0x4004ae8b);
static_assert(KVM_RUN == 0xae80);
static_assert(KVM_SET_USER_MEMORY_REGION == 0x4020ae46);
