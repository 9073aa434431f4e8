#include "vmm/process/service_thread.h"

#include <asm/unistd.h>
#include <linux/prctl.h>
#include <pthread.h>
#include <sched.h>

#include <cstdint>

#include "vmm/error.h"
#include "vmm/host/host_call.h"
#include "vmm/process/signals.h"
#include "vmm/proxy/hide_descriptors.h"

namespace dbos::vmm {

int start_service_thread(size_t stack_size, void* (*run)(void*), void* argument) {
  const AllSignalsBlocked blocked;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, stack_size);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, run, argument);
  pthread_attr_destroy(&attributes);
  return error;
}

void require_service_thread(size_t stack_size, void* (*run)(void*), void* argument,
                            const char* purpose) {
  const int error = start_service_thread(stack_size, run, argument);
  if (error != 0) throw StartError::with_code(error, "can't make the thread {}", purpose);
}

void begin_service_thread(const char* name) {
  hide_own_thread(static_cast<int>(own_thread_id()));
  raw_call(__NR_prctl, PR_SET_NAME, reinterpret_cast<uint64_t>(name));
  raw_call(__NR_unshare, CLONE_FS);
}

}  // namespace dbos::vmm
