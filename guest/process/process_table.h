// Making and releasing processes.
#pragma once

#include "guest/lib/result.h"
#include "guest/process/process.h"

namespace dbos {

class Line;

// A process without id, whose first thread counts already. `parent` null: the first one. ENOMEM.
Result<Process*> create_process(AddressSpace& space, Process* parent);

// Releases a process that has no thread any more, and its address space if no other one uses it.
void release_process(Process& process);

// visit(Process&) of the process with this id, which can't be released meanwhile: with the table's
// lock. False: there is none.
using ProcessVisitor = void (*)(void* context, Process& process);
bool visit_process(i32 process_id, ProcessVisitor visitor, void* context);
template <typename Visit>
bool visit_process(i32 process_id, Visit visit) {
  return visit_process(
      process_id, [](void* context, Process& process) { (*static_cast<Visit*>(context))(process); },
      &visit);
}

// The forked process whose memory is a snapshot and keeps most old pages: of its ancestors', or of
// the line `owner` alone if that is not null. It is condemned then: none is chosen until it is
// gone, or does not go for `patience_ns`. (SIGKILL ends nobody at once who waits for a disk that
// does not answer.)
struct Candidate {
  bool exists;        // there is one, or one that is ending, of whom nobody has lost patience
  bool is_condemned;  // one is
  i32 process_id;     // of the one that is chosen now; 0: none is, or it has not begun yet
  u64 kept_bytes;     // by it alone: what it has written itself does not count
};
Candidate condemn_snapshot(const Line* owner, u64 now_ns, u64 patience_ns);
// How many address spaces have been released, with what they kept.
u64 ended_spaces();

// A use of a process's address space beside the process's own: it lives until drop().
class SharedSpace {
 public:
  explicit SharedSpace(Process& process) : use_(process.space_use), space_(process.space) {
    use_->processes.fetch_add(1);
  }
  AddressSpace& space() { return *space_; }
  void drop();

 private:
  SpaceUse* use_;
  AddressSpace* space_;
};

// A thread counts from before its host thread is made: its creator may end before it begins, and
// must not take itself for the last one.
void count_thread(Process& process);
void discount_thread(Process& process);

// Puts a thread that counts already on its process's list.
void link_thread(Process& process, Thread& thread);

// The root of the boot page tables: the kernel's half and nothing else.
PhysicalAddress kernel_root();
void set_kernel_root(PhysicalAddress root);

}  // namespace dbos
