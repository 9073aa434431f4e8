// futex(2) and the robust list's calls.
#pragma once

#include "guest/process/thread.h"

namespace dbos {

i64 system_futex(Thread& thread, VirtualAddress address, u32 operation, u32 value,
                 u64 timeout_or_value, VirtualAddress second_address, u32 third_value);
i64 system_set_robust_list(Thread& thread, VirtualAddress head, u64 size);
i64 system_get_robust_list(Thread& thread, i32 thread_id, VirtualAddress head, VirtualAddress size);
i64 system_set_tid_address(Thread& thread, VirtualAddress word);

}  // namespace dbos
