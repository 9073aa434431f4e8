// Where the VMM's own file descriptors lie: from 768 on, above most programs' numbers, or from half
// the hard limit of open files where that is less; Linux skips them for programs that get there.
#pragma once

#include <cstdint>

namespace dbos::vmm {

// A system call that makes a descriptor, also where the program has used up its limit.
int64_t make_descriptor(long number, uint64_t a0, uint64_t a1, uint64_t a2);

// Moves a descriptor of the VMM there, marks it as ours (own_descriptors()) and to be closed at
// exec. Returns its new number; the old one where it can't be moved; -EBADF where it is gone,
// because a thread of the program closed the number that Linux had given; -EMFILE where there are
// only numbers left that the guard does not know: then it is closed.
int keep_descriptor(int descriptor);
// Closes one that was moved there.
void close_kept(int descriptor);

}  // namespace dbos::vmm
