// Giving free memory back to the host.
#pragma once

namespace dbos {

// Called after memory has been freed, without locks: gives whole free blocks back to the host when
// there are many, a bounded number at a time.
void trim_free_memory();

}  // namespace dbos
