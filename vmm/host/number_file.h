// Files of Linux's that hold a number: settings, limits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>

namespace dbos::vmm {

// `otherwise` where the file can't be read, or does not begin with a number.
inline uint64_t read_number(const std::filesystem::path& file, uint64_t otherwise) {
  std::ifstream stream(file);
  uint64_t value = 0;
  return stream >> value ? value : otherwise;
}

}  // namespace dbos::vmm
