// What guest/process needs of the rest of the guest kernel and of the VMM, on the host: program
// memory is this process's own, a program's thread is a host thread, and hypercalls are answered
// here.
#pragma once

#include <functional>
#include <set>
#include <vector>

#include "guest/process/process.h"
#include "guest/process/thread.h"

namespace dbos::fake {

// Makes the calling host thread a program's thread, for as long as it lives.
class ProgramThread {
 public:
  explicit ProgramThread(Process& process, i32 thread_id = 0);
  ~ProgramThread();
  ProgramThread(const ProgramThread&) = delete;
  ProgramThread& operator=(const ProgramThread&) = delete;

  Thread& thread() { return *thread_; }
  HypercallPage& page() { return *page_; }

  // The next Service::kPark of this thread ends as if a signal had come.
  void interrupt_next_park(i64 result);

 private:
  Thread* thread_;
  HypercallPage* page_;
};

// Whether the program's words lie in memory that it shares.
inline bool words_are_shared = false;

// An address space is only a key here.
AddressSpace* space(u32 number);

// Calls that fake::hypercall does not know end here; nullptr: the test fails.
extern std::function<i64(const Call&)> on_hypercall;

// Copies from or to these pages fail with EFAULT.
void set_inaccessible(const void* address, u64 size);
void set_all_accessible();
// The first access without fault handling to each word fails, as if its page were not present.
void set_absent_first(bool on);

}  // namespace dbos::fake
