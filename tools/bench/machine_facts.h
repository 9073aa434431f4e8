// Which machine the numbers come from.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace dbos::bench {

struct MachineFacts {
  std::string processor;
  std::string kernel;
  std::string kind;  // "hardware", "virtual machine", "emulated by QEMU (TCG)"
  std::string large_pages;
  std::string clock_source;
  bool mitigations_off = false;
  long cores = 0;
  long memory_mib = 0;

  bool is_emulated() const;
  std::string text() const;
  nlohmann::json json() const;
};

MachineFacts machine_facts();

}  // namespace dbos::bench
