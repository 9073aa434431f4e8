// Feeds broken images of guest kernels to their loader. Each is either refused with one sentence,
// or gives segments that can be placed without looking twice.
//
// With libFuzzer: clang++ -fsanitize=fuzzer,address,undefined -DDBOS_LIBFUZZER.
// Without: kernel_fuzz [SECONDS [SEED]] mutates sound images at random, with any compiler.
#include <cstdint>
#include <string>

#include "tests/fuzz/rounds.h"
#include "tests/unit/loader/kernel_builder.h"
#include "vmm/loader/kernel_file.h"
#include "vmm/loader/load_error.h"

namespace {

using dbos::kKernelImageBase;
using dbos::kKernelImageSizeMax;
using dbos::kPageSize;
using dbos::test::Random;
using dbos::test::require;
using dbos::vmm::KernelImage;
using dbos::vmm::KernelSegment;
using dbos::vmm::test::bytes_of;

void check_image(const KernelImage& image, std::span<const std::byte> file) {
  require(!image.segments.empty(), "no segment");
  uint64_t end = 0;
  bool entry_found = false;
  for (const KernelSegment& segment : image.segments) {
    require(segment.offset % kPageSize == 0 && segment.memory_size % kPageSize == 0, "no pages");
    require(segment.memory_size > 0, "empty segment");
    require(segment.offset >= end, "segments overlap or are out of order");
    require(segment.memory_size <= kKernelImageSizeMax - segment.offset, "beyond the region");
    require(segment.content.size() <= segment.memory_size, "more from the file than in memory");
    require(segment.content.data() >= file.data() &&
                segment.content.data() + segment.content.size() <= file.data() + file.size(),
            "beyond the end of the file");
    end = segment.offset + segment.memory_size;
    entry_found |= segment.rights == dbos::vmm::PageRights::kReadExecute &&
                   image.entry - kKernelImageBase - segment.offset < segment.memory_size;
  }
  require(entry_found, "entry point outside");
}

// Result: whether it was taken for a guest kernel. The copy has just its size, so that a sanitizer
// sees each byte that is read beyond its end.
bool run_one(const std::string& content) {
  const std::vector<std::byte> file(bytes_of(content).begin(), bytes_of(content).end());
  try {
    const KernelImage image = dbos::vmm::parse_kernel_image(file, "fuzz");
    check_image(image, file);
    check_features(image, image.needed_features);
    return true;
  } catch (const dbos::vmm::LoadError& error) {
    dbos::test::check_sentence(error.what());
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  dbos::test::accepted += run_one({reinterpret_cast<const char*>(data), size}) ? 1 : 0;
  return 0;
}

#ifndef DBOS_LIBFUZZER
namespace {

// A number near a place where arithmetic goes wrong.
uint64_t odd_number(Random& random) {
  const uint64_t edges[] = {0,
                            16,
                            kPageSize,
                            0x2800,
                            kKernelImageBase,
                            kKernelImageBase + kKernelImageSizeMax,
                            kKernelImageSizeMax,
                            uint64_t{1} << 32,
                            UINT64_MAX,
                            random()};
  return edges[random() % std::size(edges)] + random() % 5 - 2;
}

// The headers and the note are where the loader looks.
size_t place_of(Random& random, size_t size) {
  using Builder = dbos::vmm::test::KernelBuilder;
  const size_t headers = sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr);
  switch (random() % 4) {
    case 0:
      return Builder::kNoteOffset + random() % sizeof(dbos_image_note);
    case 1:
      return random() % size;
    default:
      return random() % headers;
  }
}

void mutate(std::string& image, Random& random) {
  const uint64_t changes = 1 + random() % 3;
  for (uint64_t i = 0; i < changes; ++i) {
    const size_t at = place_of(random, image.size() - 8);
    const uint64_t number = odd_number(random);
    switch (random() % 4) {
      case 0:
        image[at] = static_cast<char>(random());
        break;
      case 1:
        image[at] = static_cast<char>(image[at] ^ (1 << random() % 8));
        break;
      case 2:
        std::memcpy(&image[at / 8 * 8], &number, 8);
        break;
      default:
        std::memcpy(&image[at / 4 * 4], &number, 4);
        break;
    }
  }
  if (random() % 16 == 0) image.resize(random() % (image.size() + 1));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string sound = dbos::vmm::test::KernelBuilder().image();
  require(run_one(sound), "a sound image is refused");
  return dbos::test::fuzz_main(argc, argv, [&](Random& random) {
    std::string image = sound;
    mutate(image, random);
    return image;
  });
}
#endif
