// The exit statuses of dbos-run that are its own and not the program's. Those of env(1), timeout(1)
// and the shells where they have one; 70 is EX_SOFTWARE of <sysexits.h>.
#pragma once

namespace dbos::vmm {

enum class ExitStatus : int {
  kGuestPanic = 70,      // the guest kernel found a bug of its own
  kFailure = 125,        // dbos-run itself: bad options, no usable KVM, no memory
  kCannotExecute = 126,  // the program was found, but can't be run
  kNotFound = 127,       // no such program
};

}  // namespace dbos::vmm
