#include "vmm/loader/kernel_file.h"

#include <catch2/catch.hpp>
#include <functional>

#include "tests/unit/loader/kernel_builder.h"
#include "tests/unit/loader/refusal.h"
#include "tests/unit/loader/temporary_folder.h"

namespace dbos::vmm::test {
namespace {

std::string content_refusal(const std::string& content) {
  return refusal([&] { parse_kernel_image(bytes_of(content), "my.elf"); });
}

// What is said of a sound image with one change.
std::string changed_refusal(const std::function<void(KernelBuilder&)>& change) {
  KernelBuilder builder;
  change(builder);
  return content_refusal(builder.image());
}

}  // namespace

TEST_CASE("a sound image gives its segments, its entry point and what its note says") {
  KernelBuilder builder;
  builder.note.features_low = 2;
  builder.note.features_high = 3;
  const std::string content = builder.image();
  const KernelImage image = parse_kernel_image(bytes_of(content), "my.elf");
  REQUIRE(image.entry == kKernelImageBase + 0x40);
  REQUIRE(image.loads_program);
  REQUIRE(image.needed_features == 0x3'0000'0002);
  REQUIRE(image.segments.size() == 2);
  REQUIRE(image.segments[0].offset == 0);
  REQUIRE(image.segments[0].content.data() == bytes_of(content).data() + 0x1000);
  REQUIRE(image.segments[0].content.size() == 0x800);
  REQUIRE(image.segments[0].memory_size == 0x1000);
  REQUIRE(image.segments[0].rights == PageRights::kReadExecute);
  REQUIRE(image.segments[1].offset == 0x1000);
  REQUIRE(image.segments[1].memory_size == 0x3000);
  REQUIRE(image.segments[1].rights == PageRights::kReadWrite);
  builder.note.flags = 0;
  builder.data().p_flags = PF_R;
  const std::string other = builder.image();
  REQUIRE_FALSE(parse_kernel_image(bytes_of(other), "my.elf").loads_program);
  REQUIRE(parse_kernel_image(bytes_of(other), "my.elf").segments[1].rights == PageRights::kRead);
}

TEST_CASE("an image may fill the region to its end and have empty segments") {
  REQUIRE(
      changed_refusal([](auto& b) { b.data().p_memsz = kKernelImageSizeMax - 0x1000; }).empty());
  REQUIRE(changed_refusal([](auto& b) {
            b.segments.push_back(load_header(0, 0x400000, 0, 0, PF_R));
          }).empty());
}

TEST_CASE("what is no x86-64 executable at a fixed address boots nothing") {
  require_words(content_refusal(""), {"125", "cannot boot 'my.elf'", "empty"});
  require_words(content_refusal("\x7f"), {"not an ELF file"});
  require_words(content_refusal("hello, world, this is a text"), {"not an ELF file"});
  require_words(content_refusal(KernelBuilder().image().substr(0, 63)), {"header", "truncated"});
  require_words(changed_refusal([](auto& b) { b.header.e_ident[EI_CLASS] = ELFCLASS32; }),
                {"x86-64"});
  require_words(changed_refusal([](auto& b) { b.header.e_ident[EI_DATA] = ELFDATA2MSB; }),
                {"x86-64"});
  require_words(changed_refusal([](auto& b) { b.header.e_machine = EM_AARCH64; }), {"x86-64"});
  require_words(changed_refusal([](auto& b) { b.header.e_type = ET_DYN; }),
                {"fixed address", "-no-pie", "0xffffffff80000000"});
  require_words(changed_refusal([](auto& b) { b.header.e_type = ET_REL; }), {"fixed address"});
}

TEST_CASE("program headers must be there and in the file") {
  const auto headers = {"program headers"};
  require_words(changed_refusal([](auto& b) { b.segments.clear(); }), headers);
  require_words(changed_refusal([](auto& b) { b.header.e_phentsize = 32; }), headers);
  require_words(changed_refusal([](auto& b) { b.header.e_phoff = UINT64_MAX - 8; }), headers);
  require_words(changed_refusal([](auto& b) { b.header.e_phoff = b.file_size - 8; }), headers);
  require_words(content_refusal(KernelBuilder().image().substr(0, 100)), {"truncated"});
}

TEST_CASE("an image without the DBOS note is no guest kernel") {
  const auto none = {"no DBOS note", "DBOS_IMAGE_NOTE"};
  require_words(changed_refusal([](auto& b) { b.segments.pop_back(); }), none);
  require_words(changed_refusal([](auto& b) { b.note.name[0] = 'X'; }), none);
  require_words(changed_refusal([](auto& b) { b.note.name_size = 4; }), none);
  require_words(changed_refusal([](auto& b) { b.note.type = 2; }), none);
  require_words(changed_refusal([](auto& b) { b.segments.back().p_filesz = 0; }), none);
}

TEST_CASE("a damaged note is told from a missing one") {
  require_words(changed_refusal([](auto& b) { b.note.name_size = UINT32_MAX; }), {"damaged"});
  require_words(changed_refusal([](auto& b) { b.note.description_size = UINT32_MAX; }),
                {"damaged"});
  require_words(changed_refusal([](auto& b) { b.segments.back().p_filesz -= 4; }), {"damaged"});
  require_words(changed_refusal([](auto& b) { b.segments.back().p_offset = UINT64_MAX; }),
                {"notes", "truncated"});
  require_words(changed_refusal([](auto& b) { b.note.description_size = 12; }),
                {"32 bytes", "36", "DBOS_IMAGE_NOTE"});
  require_words(changed_refusal([](auto& b) { b.segments.push_back(b.note_header()); }),
                {"more than one"});
}

TEST_CASE("another version and unknown wishes are refused by number") {
  require_words(changed_refusal([](auto& b) { b.note.abi_version = 7; }),
                {"version 7", "has version 1", "build it"});
  require_words(changed_refusal([](auto& b) { b.note.flags = 0x81; }), {"flags", "0x81", "newer"});
}

TEST_CASE("a note is found behind others, in any of the note segments") {
  KernelBuilder builder;
  // An empty note of another owner in front of it.
  struct {
    uint32_t name_size = 4, description_size = 0, type = 1;
    char name[4] = {'G', 'N', 'U', 0};
  } other;
  builder.bytes.emplace_back(KernelBuilder::kNoteOffset - sizeof other,
                             std::string(reinterpret_cast<const char*>(&other), sizeof other));
  builder.segments.back().p_offset -= sizeof other;
  builder.segments.back().p_filesz += sizeof other;
  Elf64_Phdr alone = KernelBuilder::note_header();
  alone.p_offset -= sizeof other;
  alone.p_filesz = sizeof other;
  builder.segments.insert(builder.segments.begin() + 2, alone);
  REQUIRE(content_refusal(builder.image()).empty());
}

TEST_CASE("segments lie in the region of guest kernels") {
  const auto region = {"segment 1", "region of guest kernels", "0x3ff000"};
  for (const uint64_t address :
       {uint64_t{0x400000}, kKernelImageBase - kPageSize, kKernelImageBase + kKernelImageSizeMax,
        uint64_t{0}, UINT64_MAX - 0xfff}) {
    require_words(changed_refusal([&](auto& b) { b.data().p_vaddr = address; }), region);
  }
  require_words(changed_refusal([](auto& b) { b.data().p_memsz = kKernelImageSizeMax - 0xfff; }),
                region);
  require_words(changed_refusal([](auto& b) { b.data().p_memsz = UINT64_MAX; }), region);
}

TEST_CASE("segments are whole, apart, and not writable and executable at once") {
  require_words(changed_refusal([](auto& b) { b.data().p_vaddr += 8; }), {"page"});
  require_words(changed_refusal([](auto& b) { b.data().p_memsz = 8; }), {"larger in the file"});
  require_words(changed_refusal([](auto& b) { b.data().p_offset = b.file_size - 8; }),
                {"segment 1", "truncated"});
  require_words(changed_refusal([](auto& b) { b.data().p_offset = UINT64_MAX; }), {"truncated"});
  require_words(changed_refusal([](auto& b) { b.code().p_memsz = 0x1001; }), {"overlaps"});
  require_words(changed_refusal([](auto& b) { std::swap(b.code(), b.data()); }), {"out of order"});
  require_words(changed_refusal([](auto& b) { b.data().p_flags = PF_R | PF_W | PF_X; }),
                {"segment 1", "writable and executable"});
  require_words(changed_refusal([](auto& b) { b.segments[0].p_type = PT_INTERP; }),
                {"dynamically linked", "-static"});
  require_words(changed_refusal([](auto& b) { b.code().p_type = b.data().p_type = PT_NULL; }),
                {"no segment"});
}

TEST_CASE("the entry point is in executable memory") {
  for (const uint64_t entry : {uint64_t{0}, kKernelImageBase - 1, kKernelImageBase + 0x1000,
                               kKernelImageBase + kKernelImageSizeMax, UINT64_MAX}) {
    require_words(changed_refusal([&](auto& b) { b.header.e_entry = entry; }), {"entry point"});
  }
}

TEST_CASE("an image cut anywhere is refused, or lost nothing that counts") {
  const std::string content = KernelBuilder().image();
  const size_t needed = 0x2800;
  for (size_t size = 0; size < needed; size += size < 0x200 ? 1 : 61) {
    CAPTURE(size);
    require_words(content_refusal(content.substr(0, size)), {"cannot boot"});
  }
}

TEST_CASE("features that the machine does not offer are named") {
  KernelImage image;
  image.name = "my.elf";
  image.needed_features = kFeatureXsave;
  check_features(image, kFeatureXsave);
  require_words(refusal([&] { check_features(image, kFeatureClock); }), {"125", "my.elf", "XSAVE"});
  image.needed_features |= kFeatureClock;
  require_words(refusal([&] { check_features(image, kFeatureXsave); }), {"clock page", "--clock"});
  image.needed_features = uint64_t{1} << 40;
  require_words(refusal([&] { check_features(image, kFeatureXsave | kFeatureClock); }),
                {"0x10000000000", "newer"});
}

TEST_CASE("an image's file is read whole, and what is no file is refused") {
  const TemporaryFolder folder;
  const std::string content = KernelBuilder().image();
  const std::vector<std::byte> read = read_kernel_file(folder.write("kernel", content, 0600));
  REQUIRE(std::string(reinterpret_cast<const char*>(read.data()), read.size()) == content);
  require_words(refusal([&] { read_kernel_file(folder.path() + "/none"); }),
                {"125", "/none", "No such file"});
  require_words(refusal([&] { read_kernel_file(folder.path()); }), {"not a regular file"});
  require_words(refusal([&] { read_kernel_file("/dev/null"); }), {"not a regular file"});
  const std::string large = folder.write("large", "", 0600);
  REQUIRE(truncate(large.c_str(), kKernelFileSizeMax + 1) == 0);
  require_words(refusal([&] { read_kernel_file(large); }), {"67108865 bytes", "strip"});
  const std::string secret = folder.write("secret", content, 0);
  const OrdinaryUser user;
  require_words(refusal([&] { read_kernel_file(secret); }), {"Permission denied"});
}

}  // namespace dbos::vmm::test
