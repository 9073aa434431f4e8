#include "vmm/host/descriptor_guard.h"

namespace dbos::vmm {
namespace {

DescriptorGuard descriptors_of_first_process;
thread_local DescriptorGuard* the_own_descriptors = &descriptors_of_first_process;
DescriptorGuard all_own_descriptors;

}  // namespace

DescriptorGuard& own_descriptors() {
  return *the_own_descriptors;
}
DescriptorGuard& descriptors_of_all_processes() {
  return all_own_descriptors;
}
void set_own_descriptors(DescriptorGuard& guard) {
  the_own_descriptors = &guard;
}

}  // namespace dbos::vmm
