// What a snapshot may do by mistake to the memory that it shares with its creator. In C, as what is
// there is.
#include <stddef.h>
#include <string.h>

#include "tools/libdbos-snapshot/serve.h"

// The only place for runs is this function's; the next one is for dbos_snapshot_cost_now. Claims
// for ever that the answer there has the size that the argument says.
int32_t spoil_cost(const void* argument, size_t argument_size, dbos_result* result) {
  (void)argument_size, (void)result;
  const size_t offset = offsetof(struct shared_run, argument);
  struct shared_run* const own = (struct shared_run*)((uintptr_t)argument - offset);
  volatile size_t* const size = &own[1].result_size;
  size_t claim;
  memcpy(&claim, argument, sizeof claim);
  for (;;) *size = claim;
}
