// Threads of the VMM's that run no vCPU. All signals are the program's, so they block them.
#pragma once

#include <cstddef>

namespace dbos::vmm {

// 0 or an error number.
int start_service_thread(size_t stack_size, void* (*run)(void*), void* argument);

// Throws StartError: "can't make the thread `purpose`".
void require_service_thread(size_t stack_size, void* (*run)(void*), void* argument,
                            const char* purpose);

// To be called by the thread first. Its root and working directory are its own from here on: what
// the program makes of those it has must not lead the VMM elsewhere. Listings leave it out.
void begin_service_thread(const char* name);

}  // namespace dbos::vmm
