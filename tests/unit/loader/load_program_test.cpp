#include "vmm/loader/load_program.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <memory>
#include <sstream>

#include "tests/unit/loader/elf_builder.h"
#include "tests/unit/loader/refusal.h"
#include "tests/unit/loader/temporary_folder.h"
#include "tests/unit/skipped.h"

namespace dbos::vmm::test {
namespace {

std::string load_refusal(const std::string& path) {
  return refusal([&] { load_program(path); });
}

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string result;
  char buffer[4096];
  for (size_t got; (got = fread(buffer, 1, sizeof(buffer), pipe.get())) != 0;) {
    result.append(buffer, got);
  }
  return result;
}

bool exists(const std::string& path) {
  return access(path.c_str(), X_OK) == 0;
}

// The PT_LOAD lines of readelf -lW, as segments. Right for files whose segments share no page.
std::vector<LoadSegment> segments_after_readelf(const std::string& path) {
  std::istringstream lines(output_of("readelf -lW " + path + " 2>/dev/null"));
  std::vector<LoadSegment> result;
  for (std::string line; std::getline(lines, line);) {
    unsigned long long offset, address, physical, file_size, memory_size;
    char flags[4] = {};
    if (std::sscanf(line.c_str(), " LOAD %llx %llx %llx %llx %llx %3c", &offset, &address,
                    &physical, &file_size, &memory_size, flags) != 6) {
      continue;
    }
    LoadSegment segment{};
    const uint64_t lead = address % 4096;
    segment.address = address - lead;
    segment.file_offset = file_size != 0 ? offset - lead : 0;
    segment.file_size = file_size != 0 ? file_size + lead : 0;
    segment.memory_size = memory_size + lead;
    segment.protection = (flags[0] == 'R' ? PROT_READ : 0) | (flags[1] == 'W' ? PROT_WRITE : 0) |
                         (flags[2] == 'E' ? PROT_EXEC : 0);
    result.push_back(segment);
  }
  return result;
}

void require_segments(const LoadImage& image, const std::vector<LoadSegment>& expected) {
  REQUIRE(image.segment_count == expected.size());
  REQUIRE(std::memcmp(image.segments, expected.data(), expected.size() * sizeof(LoadSegment)) == 0);
}

}  // namespace

TEST_CASE("installed programs load with the segments that readelf shows") {
  if (!exists("/usr/bin/readelf")) {
    return skip_case("readelf is not installed (package binutils)");
  }
  for (const char* path : {"/bin/true", "/bin/sh", "/usr/bin/redis-server", "/bin/busybox",
                           "/usr/bin/python3", "/proc/self/exe"}) {
    if (!exists(path)) continue;
    CAPTURE(path);
    const std::string real = std::filesystem::canonical(path);
    const LoadedProgram loaded = load_program(path);
    require_segments(loaded.program, segments_after_readelf(real));
    CHECK(loaded.real_path == real);
    CHECK_FALSE(loaded.privileges_ignored);
    CHECK(loaded.program.descriptor == loaded.program_file.number());
    if (loaded.interpreter_path.empty()) {
      CHECK(loaded.interpreter.descriptor == -1);
      CHECK(loaded.interpreter.segment_count == 0);
    } else {
      CHECK(loaded.interpreter.descriptor == loaded.interpreter_file.number());
      require_segments(loaded.interpreter, segments_after_readelf(loaded.interpreter_path));
    }
  }
}

TEST_CASE("this program's segments are where Linux mapped them") {
  const LoadedProgram loaded = load_program("/proc/self/exe");
  std::istringstream maps(output_of("cat /proc/" + std::to_string(getpid()) + "/maps"));
  uint64_t base = 0;
  int lines_checked = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.size() < loaded.real_path.size() || !line.ends_with(" " + loaded.real_path)) continue;
    unsigned long long begin, end, offset;
    REQUIRE(std::sscanf(line.c_str(), "%llx-%llx %*s %llx", &begin, &end, &offset) == 3);
    if (lines_checked++ == 0 && loaded.program.position_independent != 0) {
      base = begin - loaded.program.segments[0].address;
    }
    // RELRO splits a segment's mapping, so a line is a part of a segment.
    const LoadSegment* last = loaded.program.segments + loaded.program.segment_count;
    const bool found = std::any_of(loaded.program.segments, last, [&](const LoadSegment& segment) {
      const uint64_t at = begin - base - segment.address;
      return base + segment.address <= begin && at < segment.file_size &&
             offset == segment.file_offset + at &&
             end <= base + segment.address + ((segment.file_size + 4095) & ~uint64_t{4095});
    });
    CAPTURE(line);
    CHECK(found);
  }
  CHECK(lines_checked >= static_cast<int>(loaded.program.segment_count));
}

TEST_CASE("descriptors are close-on-exec, and closed unless they are handed over") {
  int program = -1;
  int interpreter = -1;
  {
    const LoadedProgram loaded = load_program("/bin/sh");
    program = loaded.program.descriptor;
    interpreter = loaded.interpreter.descriptor;
    REQUIRE((fcntl(program, F_GETFD) & FD_CLOEXEC) != 0);
    REQUIRE((fcntl(interpreter, F_GETFD) & FD_CLOEXEC) != 0);
  }
  REQUIRE(fcntl(program, F_GETFD) == -1);
  REQUIRE(fcntl(interpreter, F_GETFD) == -1);
  {
    LoadedProgram loaded = load_program("/bin/sh");
    LoadedProgram moved = std::move(loaded);
    program = moved.program.descriptor;
    interpreter = moved.interpreter.descriptor;
    moved.hand_over_descriptors();
  }
  REQUIRE(close(program) == 0);
  REQUIRE(close(interpreter) == 0);
}

TEST_CASE("a file that cannot be executed is refused by its reason") {
  const TemporaryFolder folder;
  const std::string image = ElfBuilder().image();
  require_words(load_refusal(folder.path() + "/absent"), {"127", "absent", "No such file"});
  require_words(load_refusal(folder.write("plain", image, 0644) + "/x"),
                {"127", "Not a directory"});
  require_words(load_refusal(folder.path() + "/plain"), {"126", "permission to execute", "chmod"});
  require_words(load_refusal(folder.path()), {"126", "directory"});
  REQUIRE(mkfifo((folder.path() + "/pipe").c_str(), 0755) == 0);
  require_words(load_refusal(folder.path() + "/pipe"), {"126", "not a regular file"});
  require_words(load_refusal("/dev/null"), {"126", "not a regular file"});
  folder.write("secret", image, 0111);
  const OrdinaryUser nobody;
  require_words(load_refusal(folder.path() + "/secret"), {"126", "permission to read", "chmod +r"});
}

TEST_CASE("a script is refused with where to put dbos-run") {
  const TemporaryFolder folder;
  const std::string path = folder.write("script", "#!/usr/bin/python3 -u\n", 0755);
  require_words(load_refusal(path), {"126", path.c_str(), "script for /usr/bin/python3 -u",
                                     "put dbos-run before the database"});
}

TEST_CASE("a static program needs no interpreter") {
  const TemporaryFolder folder;
  const LoadedProgram loaded = load_program(folder.write("db", ElfBuilder().image(), 0755));
  REQUIRE(loaded.interpreter_path.empty());
  REQUIRE(loaded.interpreter.descriptor == -1);
  REQUIRE(loaded.program.segment_count == 2);
}

TEST_CASE("a file cut short is refused, wherever it was cut") {
  const TemporaryFolder folder;
  const std::string image = ElfBuilder().image();
  for (size_t size = 0; size < image.size(); size += size < 256 ? 1 : 97) {
    CAPTURE(size);
    const std::string message = load_refusal(folder.write("cut", image.substr(0, size), 0755));
    CHECK_THAT(message, Catch::StartsWith("126: cannot run"));
  }
}

TEST_CASE("the interpreter is loaded and checked like the program") {
  const TemporaryFolder folder;
  ElfBuilder interpreter;
  interpreter.make_position_independent();
  const std::string path = folder.write("ld.so", interpreter.image(), 0755);
  const std::string program = folder.write("db", ElfBuilder().add_interpreter(path).image(), 0755);
  const LoadedProgram loaded = load_program(program);
  REQUIRE(loaded.interpreter_path == path);
  REQUIRE(loaded.interpreter.position_independent == 1);
  REQUIRE(loaded.interpreter.entry == 0x1000);

  SECTION("a missing one is named, with what may be missing") {
    std::filesystem::remove(path);
    require_words(load_refusal(program), {"126", program.c_str(), path.c_str(), "missing", "musl"});
  }
  SECTION("one whose name would upset the terminal is named in printable characters") {
    const std::string odd = ElfBuilder().add_interpreter("/\x1b[31m\n/ld.so").image();
    require_words(load_refusal(folder.write("odd", odd, 0755)), {"'/?[31m?/ld.so'", "missing"});
  }
  SECTION("one that is not executable is refused") {
    chmod(path.c_str(), 0644);
    require_words(load_refusal(program), {"126", program.c_str(), path.c_str(), "permission"});
  }
  SECTION("one for another machine is refused") {
    interpreter.header.e_machine = EM_AARCH64;
    folder.write("ld.so", interpreter.image(), 0755);
    require_words(load_refusal(program), {"126", path.c_str(), "aarch64"});
  }
}

TEST_CASE("a set-user-ID program runs without the owner's rights, and that is reported") {
  const TemporaryFolder folder;
  const std::string path = folder.write("db", ElfBuilder().image(), 0755);
  REQUIRE_FALSE(load_program(path).privileges_ignored);
  chmod(path.c_str(), 04755);
  REQUIRE_FALSE(load_program(path).privileges_ignored);  // its own owner's: no change
  const OrdinaryUser nobody;
  struct stat status;
  REQUIRE(stat(path.c_str(), &status) == 0);
  REQUIRE(load_program(path).privileges_ignored == (status.st_uid != geteuid()));
}

}  // namespace dbos::vmm::test
