#include "vmm/process/handover.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include <cerrno>

#include "vmm/host/descriptor_message.h"
#include "vmm/host/host_lock.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/process/host_process.h"
#include "vmm/process/steward.h"

namespace dbos::vmm {
namespace {

// The queue holds some hundred; the steward empties it when it is rung.
constexpr int kAttemptsMax = 100;
constexpr timespec kPause = {0, 1'000'000};
// Where a process may have fewer, they are too dear for this.
constexpr rlim_t kDescriptorsMin = 64;

int sender = -1;
int receiver = -1;

// The sequence first: nobody may take the vCPU for an older one of `own`.
void give_to(Vcpu& vcpu, const HostProcess& own) {
  vcpu.descriptor = vcpu.made_as = vcpu.handed_over;
  vcpu.receiver = nullptr;
  vcpu.sequence = vcpus().take_sequence();
  vcpu.creator = &own;
}

}  // namespace

int64_t open_handover() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < kDescriptorsMin) return 0;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
  receiver = keep_descriptor(ends[0]);
  sender = keep_descriptor(ends[1]);
  return 0;
}

bool hand_over(const Vcpu& vcpu) {
  if (sender < 0) return true;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    if (send_with_file(sender, &vcpu.index, sizeof vcpu.index, vcpu.descriptor, MSG_DONTWAIT) >= 0)
      return true;
    if (errno != EAGAIN) return false;
    ring_steward();
    nanosleep(&kPause, nullptr);
  }
  return false;
}

void receive_descriptors(const HostProcess& own) {
  while (receiver >= 0) {
    uint32_t index = 0;
    int descriptor = -1;
    const HostLockGuard guard(own.moves);
    if (receive_with_file(receiver, &index, sizeof index, &descriptor, MSG_DONTWAIT) < 0) return;
    if (descriptor < 0 || index >= vcpus().count()) continue;
    Vcpu& vcpu = vcpus().at(index);
    vcpu.handed_over = keep_descriptor(descriptor);
    if (vcpu.handed_over >= 0) vcpu.receiver = &own;
  }
}

bool can_lend(const Vcpu& vcpu, const HostProcess& own) {
  return vcpu.receiver == &own;
}

void use_descriptor_of(Vcpu& vcpu, const HostProcess& own) {
  const bool is_usable = vcpus().is_usable(vcpu, own);
  vcpu.descriptor = is_usable ? vcpu.made_as : vcpu.handed_over;
}

void take_over_free_vcpus(const HostProcess& own) {
  for (Vcpu& vcpu : vcpus()) {
    if (!can_lend(vcpu, own) || uses_vcpus(*vcpu.creator) || !vcpus().take(vcpu, nullptr)) continue;
    give_to(vcpu, own);
    vcpus().release(vcpu);
  }
}

}  // namespace dbos::vmm
