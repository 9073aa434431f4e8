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

}  // namespace dbos::vmm
