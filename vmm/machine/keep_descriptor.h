// Where the VMM's own file descriptors lie: from 768 on, above most programs' numbers, or from half
// the hard limit of open files where that is less; Linux skips them for programs that get there.
#pragma once

namespace dbos::vmm {

// Moves a descriptor of the VMM there, marks it as ours (own_descriptors()) and to be closed at
// exec. Answers its new number; the old one where it can't be moved.
int keep_descriptor(int descriptor);
// Closes one that was moved there.
void close_kept(int descriptor);

}  // namespace dbos::vmm
