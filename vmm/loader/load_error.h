// Why a program could not be loaded: one sentence for the user, and the status to exit with.
#pragma once

#include <stdexcept>
#include <string>

#include "vmm/exit_status.h"

namespace dbos::vmm {

class LoadError : public std::runtime_error {
 public:
  LoadError(ExitStatus status, const std::string& sentence)
      : std::runtime_error(sentence), status_(status) {}
  ExitStatus status() const { return status_; }

 private:
  ExitStatus status_;
};

// The error with which execve(2) would refuse the file before looking into it; 0: none.
int execution_error(const std::string& path);
// Says why, for such an error.
[[noreturn]] void refuse_to_execute(const std::string& path, int error);

}  // namespace dbos::vmm
