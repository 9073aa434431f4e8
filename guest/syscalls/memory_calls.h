// The system calls on memory. Results: Linux's value or -errno.
#pragma once

#include "guest/process/thread.h"

namespace dbos {

i64 system_mmap(Thread& thread, u64 address, u64 length, int protection, int flags, i32 descriptor,
                u64 offset);
i64 system_brk(Thread& thread, u64 address);
i64 system_munmap(Thread& thread, u64 address, u64 length);
i64 system_mremap(Thread& thread, u64 address, u64 old_length, u64 new_length, int flags,
                  u64 new_address);
i64 system_msync(Thread& thread, u64 address, u64 length, int flags);
i64 system_madvise(Thread& thread, u64 address, u64 length, int advice);
i64 system_mincore(Thread& thread, u64 address, u64 length, VirtualAddress vector);
i64 system_shmat(Thread& thread, i32 identifier, u64 address, int flags);
i64 system_mlock(Thread& thread, u64 address, u64 length, int flags);
i64 system_mlockall(Thread& thread, int flags);
// prctl's PR_SET_THP_DISABLE and PR_GET_THP_DISABLE. Linux must not be told: it would take the
// large pages from the whole machine's memory. `arguments`: of prctl.
i64 system_set_thp_disable(Thread& thread, const u64 arguments[6]);
i64 system_get_thp_disable(Thread& thread, const u64 arguments[6]);

}  // namespace dbos
