// Images of guest kernels: libdbos, which dbos-run carries inside itself, and the files of
// --kernel.
//
// An image is a static ELF executable for [kKernelImageBase, + kKernelImageSizeMax) with a note
// that says what it expects (dbos_image_note). All is checked here, before anything of the machine
// is made; docs/hypercall-abi.md is what it is checked against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hypercall/abi.h"

namespace dbos::vmm {

enum class PageRights : uint64_t { kReadExecute, kRead, kReadWrite };

struct KernelSegment {
  uint64_t offset;                     // from kKernelImageBase, page-aligned
  std::span<const std::byte> content;  // at most memory_size bytes
  uint64_t memory_size;                // whole pages; zero behind the content
  PageRights rights;
};

struct KernelImage {
  std::string name;                     // for messages
  std::vector<KernelSegment> segments;  // by offset, no page in two of them
  uint64_t entry = 0;                   // in an executable segment
  uint64_t needed_features = 0;         // DBOS_FEATURE_...
  bool loads_program = false;           // DBOS_IMAGE_LOADS_PROGRAM
};

inline constexpr uint64_t kKernelFileSizeMax = 64 * kMiB;  // with its debug information

// The whole file. Throws LoadError, as the others do: one sentence, ExitStatus::kFailure.
std::vector<std::byte> read_kernel_file(const std::string& path);

// The result's segments refer to `file`, which must outlive them.
KernelImage parse_kernel_image(std::span<const std::byte> file, const std::string& name);

// Throws if the image needs a feature that is not among `offered`.
void check_features(const KernelImage& image, uint64_t offered);

}  // namespace dbos::vmm
