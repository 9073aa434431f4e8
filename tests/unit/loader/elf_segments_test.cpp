#include "vmm/loader/elf_segments.h"

#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <functional>
#include <map>

#include "tests/unit/loader/elf_builder.h"
#include "tests/unit/loader/refusal.h"

namespace dbos::vmm::test {
namespace {

constexpr uint32_t kText = PF_R | PF_X;
constexpr uint32_t kData = PF_R | PF_W;

LoadImage image_of(const ElfBuilder& builder) {
  ElfFile file{};
  file.header = builder.header;
  file.header.e_phnum = static_cast<uint16_t>(builder.segments.size());
  file.program_headers = builder.segments;
  file.file_size = builder.file_size;
  return make_load_image(file, "/opt/db");
}

std::string segment_refusal(const std::function<void(ElfBuilder&)>& damage) {
  ElfBuilder builder;
  damage(builder);
  return refusal([&] { image_of(builder); });
}

// What a page shows: the file's page at `offset` (or zeros), with which permissions.
struct Page {
  bool from_file;
  uint64_t offset;
  uint32_t protection;
  bool operator==(const Page&) const = default;
};

uint32_t protection_of(uint32_t flags) {
  return ((flags & PF_R) != 0 ? PROT_READ : 0) | ((flags & PF_W) != 0 ? PROT_WRITE : 0) |
         ((flags & PF_X) != 0 ? PROT_EXEC : 0);
}

// As Linux maps it: each segment in turn, over what is there; zeros only on whole further pages.
std::map<uint64_t, Page> pages_under_linux(const std::vector<Elf64_Phdr>& headers) {
  std::map<uint64_t, Page> pages;
  for (const Elf64_Phdr& header : headers) {
    const uint64_t first = header.p_vaddr / kPageSize * kPageSize;
    const uint64_t lead = header.p_vaddr - first;
    uint64_t page = first;
    for (; header.p_filesz != 0 && page < header.p_vaddr + header.p_filesz; page += kPageSize) {
      pages[page] = {true, header.p_offset - lead + (page - first), protection_of(header.p_flags)};
    }
    for (; page < header.p_vaddr + header.p_memsz; page += kPageSize) {
      if (header.p_filesz == 0 && page == first && pages.count(page) != 0) continue;
      pages[page] = {false, 0, protection_of(header.p_flags)};
    }
  }
  return pages;
}

std::map<uint64_t, Page> pages_of(const LoadImage& image) {
  std::map<uint64_t, Page> pages;
  for (uint32_t i = 0; i < image.segment_count; ++i) {
    const LoadSegment& segment = image.segments[i];
    REQUIRE(segment.address % kPageSize == 0);
    REQUIRE(segment.file_offset % kPageSize == 0);
    REQUIRE(segment.file_size <= segment.memory_size);
    for (uint64_t at = 0; at < segment.memory_size; at += kPageSize) {
      const bool from_file = at < segment.file_size;
      const bool inserted =
          pages
              .insert({segment.address + at,
                       {from_file, from_file ? segment.file_offset + at : 0, segment.protection}})
              .second;
      REQUIRE(inserted);  // not overlapping
    }
  }
  return pages;
}

void require_as_linux(const ElfBuilder& builder) {
  REQUIRE(pages_of(image_of(builder)) == pages_under_linux(builder.segments));
}

}  // namespace

TEST_CASE("a static program's segments are page-aligned, file part first") {
  ElfBuilder builder;
  builder.segments[1] = load_header(0x2010, 0x402010, 0x700, 0x1ff0, kData);
  const LoadImage image = image_of(builder);
  REQUIRE(image.descriptor == -1);
  REQUIRE(image.position_independent == 0);
  REQUIRE(image.stack_executable == 0);
  REQUIRE(image.alignment == kPageSize);
  REQUIRE(image.entry == 0x401000);
  REQUIRE(image.program_headers == 0x400040);
  REQUIRE(image.program_header_count == 2);
  REQUIRE(image.program_header_size == sizeof(Elf64_Phdr));
  REQUIRE(image.segment_count == 2);
  REQUIRE(image.segments[0].address == 0x400000);
  REQUIRE(image.segments[0].file_size == 0x1800);
  REQUIRE(image.segments[0].memory_size == 0x1800);
  REQUIRE(image.segments[0].protection == (PROT_READ | PROT_EXEC));
  REQUIRE(image.segments[1].address == 0x402000);
  REQUIRE(image.segments[1].file_offset == 0x2000);
  REQUIRE(image.segments[1].file_size == 0x710);
  REQUIRE(image.segments[1].memory_size == 0x2000);
  REQUIRE(image.segments[1].protection == (PROT_READ | PROT_WRITE));
  require_as_linux(builder);
}

TEST_CASE("a position-independent image keeps its addresses and its largest alignment") {
  ElfBuilder builder;
  builder.make_position_independent();
  builder.segments[1].p_align = kLargePageSize;
  builder.segments[0].p_align = 0;
  const LoadImage image = image_of(builder);
  REQUIRE(image.position_independent == 1);
  REQUIRE(image.alignment == kLargePageSize);
  REQUIRE(image.segments[0].address == 0);
  REQUIRE(image.program_headers == 0x40);
}

TEST_CASE("PT_GNU_STACK decides whether the stack is executable") {
  ElfBuilder builder;
  Elf64_Phdr stack{};
  stack.p_type = PT_GNU_STACK;
  stack.p_flags = PF_R | PF_W | PF_X;
  builder.segments.push_back(stack);
  REQUIRE(image_of(builder).stack_executable == 1);
  builder.segments.back().p_flags = PF_R | PF_W;
  REQUIRE(image_of(builder).stack_executable == 0);
}

TEST_CASE("the program header table's address is where its segment maps it") {
  ElfBuilder builder;
  builder.header.e_phoff = 0x2100;
  REQUIRE(image_of(builder).program_headers == 0x402100);
  builder.header.e_phoff = 0x1900;
  REQUIRE(image_of(builder).program_headers == 0);  // in no segment
}

TEST_CASE("headers that are not loaded are not looked at") {
  ElfBuilder builder;
  for (const uint32_t type : {PT_TLS, PT_GNU_PROPERTY, PT_NOTE, PT_GNU_RELRO, PT_DYNAMIC}) {
    Elf64_Phdr other{};
    other.p_type = type;
    other.p_offset = other.p_vaddr = other.p_filesz = UINT64_MAX;
    builder.segments.push_back(other);
  }
  REQUIRE(image_of(builder).segment_count == 2);
}

TEST_CASE("an empty segment is dropped, and one of zeros needs no place in the file") {
  ElfBuilder builder;
  builder.segments.push_back(load_header(0x2345, 0x500000, 0, 0, kData));
  builder.segments.push_back(load_header(0x77, 0x600010, 0, 0x3000, kData));
  const LoadImage image = image_of(builder);
  REQUIRE(image.segment_count == 3);
  REQUIRE(image.segments[2].address == 0x600000);
  REQUIRE(image.segments[2].file_offset == 0);
  REQUIRE(image.segments[2].file_size == 0);
  REQUIRE(image.segments[2].memory_size == 0x3010);
}

TEST_CASE("of two segments on one page the later one's file page shows, as under Linux") {
  ElfBuilder builder;
  builder.segments = {load_header(0, 0x400000, 0x1800, 0x1800, kText),
                      load_header(0x1800, 0x401800, 0x800, 0x1000, kData)};
  LoadImage image = image_of(builder);
  REQUIRE(image.segment_count == 2);
  REQUIRE(image.segments[0].memory_size == 0x1000);
  REQUIRE(image.segments[0].file_size == 0x1000);
  REQUIRE(image.segments[1].address == 0x401000);
  REQUIRE(image.segments[1].file_size == 0x1000);
  require_as_linux(builder);

  SECTION("also when the earlier one's zeros reach into the page") {
    builder.segments = {load_header(0, 0x400000, 0x1100, 0x3800, kText),
                        load_header(0x1800, 0x403800, 0x800, 0x1000, kData)};
    require_as_linux(builder);
  }
  SECTION("also when nothing is left of the earlier one") {
    builder.segments = {load_header(0, 0x400000, 0x1000, 0x1000, kText),
                        load_header(0x1000, 0x401000, 0x100, 0x100, PF_R),
                        load_header(0x1200, 0x401200, 0x100, 0x100, kData),
                        load_header(0x1400, 0x401400, 0x400, 0x900, kText)};
    builder.header.e_entry = 0x400100;
    REQUIRE(image_of(builder).segment_count == 2);
    require_as_linux(builder);
  }
}

TEST_CASE("zeros that begin on another segment's page leave it the page") {
  ElfBuilder builder;
  builder.segments[1] = load_header(0x2000, 0x402000, 0x700, 0x700, kData);
  builder.segments.push_back(load_header(0, 0x402800, 0, 0x3000, kData));
  const LoadImage image = image_of(builder);
  REQUIRE(image.segment_count == 3);
  REQUIRE(image.segments[1].file_size == 0x700);
  REQUIRE(image.segments[1].memory_size == 0x1000);
  REQUIRE(image.segments[2].address == 0x403000);
  REQUIRE(image.segments[2].memory_size == 0x2800);
  require_as_linux(builder);

  SECTION("all of it, if they end there") {
    builder.segments[2].p_memsz = 0x100;
    REQUIRE(image_of(builder).segment_count == 2);
    REQUIRE(image_of(builder).segments[1].memory_size == 0x900);
  }
  SECTION("but not with other permissions") {
    builder.segments[2].p_flags = PF_R;
    require_words(refusal([&] { image_of(builder); }), {"zero-filled", "0x402000", "permissions"});
  }
}

TEST_CASE("the most segments are taken, one more is not") {
  ElfBuilder builder;
  while (builder.segments.size() < kLoadSegmentsMax) {
    builder.segments.push_back(
        load_header(0, 0x500000 + 0x2000 * builder.segments.size(), 1, 1, PF_R));
  }
  REQUIRE(image_of(builder).segment_count == kLoadSegmentsMax);
  builder.segments.push_back(load_header(0, 0x900000, 1, 1, PF_R));
  require_words(refusal([&] { image_of(builder); }), {"126", "33 segments", "32"});
  // What is dropped does not count.
  builder.segments.back().p_memsz = builder.segments.back().p_filesz = 0;
  REQUIRE(image_of(builder).segment_count == kLoadSegmentsMax);
}

TEST_CASE("a segment that cannot be is refused") {
  auto damage = [](uint64_t Elf64_Phdr::*field, uint64_t value) {
    return segment_refusal([&](ElfBuilder& builder) { builder.segments[1].*field = value; });
  };
  require_words(damage(&Elf64_Phdr::p_memsz, 0x7ff), {"126", "/opt/db", "segment 1", "larger"});
  require_words(damage(&Elf64_Phdr::p_filesz, 0x801), {"segment 1", "truncated"});
  require_words(damage(&Elf64_Phdr::p_offset, UINT64_MAX - 0xfff), {"truncated"});
  require_words(damage(&Elf64_Phdr::p_align, 0x3000), {"alignment", "0x3000", "power of two"});
  require_words(damage(&Elf64_Phdr::p_offset, 0x1ff0), {"0x1ff0", "0x402000", "within a page"});
  require_words(damage(&Elf64_Phdr::p_memsz, kProgramEnd), {"above", "address space"});
  require_words(damage(&Elf64_Phdr::p_memsz, UINT64_MAX), {"above", "address space"});
  require_words(damage(&Elf64_Phdr::p_vaddr, kProgramEnd), {"above", "address space"});
  require_words(damage(&Elf64_Phdr::p_vaddr, UINT64_MAX - 0xfff), {"above", "address space"});
  require_words(damage(&Elf64_Phdr::p_vaddr, 0xf000), {"0xf000", "mmap_min_addr"});
  require_words(damage(&Elf64_Phdr::p_vaddr, 0x10000), {"segment 1", "out of order"});
  require_words(damage(&Elf64_Phdr::p_vaddr, 0x401000), {"segment 1", "overlaps"});
  require_words(damage(&Elf64_Phdr::p_memsz, kArenaSizeMax), {"768 GiB", "memory"});
}

TEST_CASE("the last byte below the end of the address space can be used") {
  ElfBuilder builder;
  builder.segments[1].p_vaddr = kProgramEnd - 0x3000;
  builder.segments[1].p_memsz = 0x3000;
  REQUIRE(image_of(builder).segments[1].address == kProgramEnd - 0x3000);
  builder.segments[1].p_memsz = 0x3001;
  require_words(refusal([&] { image_of(builder); }), {"above"});
}

TEST_CASE("an image without a place to start is refused") {
  require_words(segment_refusal([](ElfBuilder& builder) { builder.segments.clear(); }),
                {"no segment to load"});
  require_words(segment_refusal([](ElfBuilder& builder) { builder.header.e_entry = 0x402000; }),
                {"entry point 0x402000", "executable segment"});
  require_words(segment_refusal([](ElfBuilder& builder) { builder.header.e_entry = 0; }),
                {"entry point 0x0"});
  require_words(segment_refusal([](ElfBuilder& builder) { builder.header.e_entry = 0x401800; }),
                {"entry point 0x401800"});
}

TEST_CASE("a position-independent image must fit with its alignment") {
  require_words(segment_refusal([](ElfBuilder& builder) {
                  builder.make_position_independent().segments[0].p_align = uint64_t{1} << 63;
                }),
                {"does not fit", "alignment"});
  require_words(segment_refusal([](ElfBuilder& builder) {
                  builder.make_position_independent().segments[1].p_vaddr = kProgramEnd - 0x3000;
                }),
                {"does not fit"});
}

}  // namespace dbos::vmm::test
