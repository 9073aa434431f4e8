// Feeds broken ELF files to the loader. Each is either refused with one sentence, or gives an image
// that the guest kernel can map without looking twice.
//
// With libFuzzer: clang++ -fsanitize=fuzzer,address,undefined -DDBOS_LIBFUZZER.
// Without: loader_fuzz [SECONDS [SEED]] mutates sound images at random, with any compiler.
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/fuzz/rounds.h"
#include "tests/unit/loader/elf_builder.h"
#include "vmm/loader/elf_file.h"
#include "vmm/loader/elf_segments.h"
#include "vmm/loader/load_error.h"

namespace {

using dbos::kPageSize;
using dbos::LoadImage;
using dbos::LoadSegment;
using dbos::test::Random;
using dbos::test::require;

void check_image(const LoadImage& image, uint64_t file_size) {
  require(image.descriptor == -1, "a descriptor out of nowhere");
  require(image.segment_count >= 1, "no segment");
  require(image.segment_count <= dbos::kLoadSegmentsMax, "too many segments");
  require(image.alignment >= kPageSize && std::has_single_bit(image.alignment), "alignment");
  require(image.program_header_size == sizeof(Elf64_Phdr), "program header size");
  uint64_t end = image.position_independent != 0 ? 0 : dbos::vmm::kProgramBegin;
  for (uint32_t i = 0; i < image.segment_count; ++i) {
    const LoadSegment& segment = image.segments[i];
    require(segment.address % kPageSize == 0, "address not aligned");
    require(segment.file_offset % kPageSize == 0, "offset not aligned");
    require(segment.address >= end, "segments overlap or are out of order");
    require(segment.memory_size > 0, "empty segment");
    require(segment.file_size <= segment.memory_size, "more from the file than in memory");
    require(segment.memory_size <= dbos::kProgramEnd - segment.address, "beyond the end");
    require(segment.file_size <= file_size && segment.file_offset <= file_size - segment.file_size,
            "beyond the end of the file");
    require((segment.protection & ~uint32_t{PROT_READ | PROT_WRITE | PROT_EXEC}) == 0,
            "protection");
    end = (segment.address + segment.memory_size + kPageSize - 1) & ~(kPageSize - 1);
  }
  require(image.position_independent == 0 || end <= dbos::kProgramEnd - image.alignment,
          "no place for the base");
  require(image.entry < end, "entry point outside");
}

void run_one(const uint8_t* data, size_t size) {
  static const dbos::vmm::FileDescriptor file(memfd_create("fuzz", MFD_CLOEXEC));
  require(ftruncate(file.number(), 0) == 0, "ftruncate");
  require(pwrite(file.number(), data, size, 0) == static_cast<ssize_t>(size), "pwrite");
  try {
    const dbos::vmm::ElfFile elf =
        dbos::vmm::read_elf_file(file.number(), "fuzz", dbos::vmm::ImageRole::kProgram);
    const LoadImage image = dbos::vmm::make_load_image(elf, "fuzz");
    check_image(image, size);
    const std::string interpreter = dbos::vmm::read_interpreter_path(file.number(), "fuzz", elf);
    require(interpreter.find('\0') == std::string::npos, "NUL in the interpreter's path");
    ++dbos::test::accepted;
  } catch (const dbos::vmm::LoadError& error) {
    dbos::test::check_sentence(error.what());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run_one(data, size);
  return 0;
}

#ifndef DBOS_LIBFUZZER
namespace {

constexpr size_t kSeedSizeMax =
    size_t{16} * 1024;  // enough for all headers; the mutations stay dense

std::vector<std::string> seeds() {
  using dbos::vmm::test::ElfBuilder;
  using dbos::vmm::test::load_header;
  std::vector<std::string> result = {ElfBuilder().image()};
  result.push_back(ElfBuilder().make_position_independent().image());
  result.push_back(ElfBuilder().add_interpreter("/lib64/ld-linux-x86-64.so.2").image());
  ElfBuilder crowded;
  for (uint64_t i = 0; i < 30; ++i) {
    crowded.segments.push_back(
        load_header(0x700 * i % 0x2000, 0x500000 + 0x700 * i, 0x80, 0x600, PF_R | PF_W));
  }
  result.push_back(crowded.image());
  for (const char* path : {"/bin/true", "/proc/self/exe"}) {
    std::ifstream stream(path, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(stream), {}};
    if (content.size() > sizeof(Elf64_Ehdr)) result.push_back(content.substr(0, kSeedSizeMax));
  }
  return result;
}

// A number near a place where arithmetic goes wrong.
uint64_t odd_number(Random& random) {
  const uint64_t edges[] = {0,
                            0x1000,
                            0x10000,
                            0x400000,
                            0x2800,
                            dbos::kProgramEnd,
                            uint64_t{1} << 32,
                            uint64_t{1} << 63,
                            UINT64_MAX,
                            random()};
  return edges[random() % std::size(edges)] + random() % 5 - 2;
}

void mutate(std::string& image, Random& random) {
  const uint64_t changes = 1 + random() % 4;
  for (uint64_t i = 0; i < changes; ++i) {
    // Mostly within the ELF header and the first program headers.
    const size_t reach = random() % 8 == 0 ? image.size() : std::min<size_t>(image.size(), 512);
    if (reach < 8) return;
    const size_t at = random() % (reach - 7);
    const uint64_t number = odd_number(random);
    switch (random() % 5) {
      case 0:
        image[at] = static_cast<char>(random());
        break;
      case 1:
        image[at] = static_cast<char>(image[at] ^ (1 << random() % 8));
        break;
      case 2:
        std::memcpy(&image[at / 8 * 8], &number, 8);
        break;
      case 3:
        std::memcpy(&image[at / 4 * 4], &number, 4);
        break;
      default:
        // From one program header to another.
        std::memmove(&image[at], &image[random() % (reach - 7)], 8);
        break;
    }
  }
  if (random() % 16 == 0) image.resize(random() % (image.size() + 1));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> images = seeds();
  for (const std::string& image : images) {
    run_one(reinterpret_cast<const uint8_t*>(image.data()), image.size());
  }
  return dbos::test::fuzz_main(argc, argv, [&](Random& random) {
    std::string image = images[random() % images.size()];
    mutate(image, random);
    return image;
  });
}
#endif
