#include "vmm/loader/find_program.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/unit/loader/refusal.h"
#include "tests/unit/loader/temporary_folder.h"

namespace dbos::vmm::test {
namespace {

std::string find_refusal(const std::string& name, const char* search_path) {
  return refusal([&] { find_program(name, search_path); });
}

}  // namespace

TEST_CASE("a name without slash is looked for in PATH, the first executable file wins") {
  const TemporaryFolder first;
  const TemporaryFolder second;
  first.write("db", "not executable", 0644);
  second.write("db", "", 0755);
  std::filesystem::create_directory(first.path() + "/tool");
  second.write("tool", "", 0755);
  const std::string search_path = "/nowhere:" + first.path() + ":" + second.path();
  const FoundProgram found = find_program("db", search_path.c_str());
  REQUIRE(found.real_path == second.path() + "/db");
  REQUIRE(found.execution_name == second.path() + "/db");
  REQUIRE(found.name == "db");
  REQUIRE(find_program("tool", search_path.c_str()).real_path == second.path() + "/tool");
}

TEST_CASE("links are resolved, the name to execute is not") {
  const TemporaryFolder folder;
  folder.write("redis-7", "", 0755);
  std::filesystem::create_symlink("redis-7", folder.path() + "/redis");
  const FoundProgram found = find_program("redis", folder.path().c_str());
  REQUIRE(found.real_path == folder.path() + "/redis-7");
  REQUIRE(found.execution_name == folder.path() + "/redis");
}

TEST_CASE("an empty entry of PATH is the current directory") {
  const TemporaryFolder folder;
  folder.write("here", "", 0755);
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  for (const char* search_path : {"", ":/nowhere", "/nowhere:", "/nowhere::/nowhere"}) {
    const FoundProgram found = find_program("here", search_path);
    CHECK(found.real_path == folder.path() + "/here");
    CHECK(found.execution_name == "here");
  }
  std::filesystem::current_path(before);
}

TEST_CASE("without PATH the system's folders are searched") {
  REQUIRE(find_program("sh", nullptr).execution_name == "/bin/sh");
}

TEST_CASE("a name with a slash is a path, whatever PATH says") {
  const TemporaryFolder folder;
  const std::string path = folder.write("db", "", 0755);
  std::filesystem::create_directory(folder.path() + "/sub");
  const FoundProgram found = find_program(folder.path() + "/sub/../db", "");
  REQUIRE(found.real_path == path);
  REQUIRE(found.execution_name == folder.path() + "/sub/../db");
}

TEST_CASE("not found and not permitted are different failures") {
  const TemporaryFolder folder;
  folder.write("plain", "", 0644);
  require_words(find_refusal("plain", folder.path().c_str()),
                {"126", "no permission", "plain", "chmod +x"});
  require_words(find_refusal(folder.path() + "/plain", ""), {"126", "no permission"});
  require_words(find_refusal("absent", folder.path().c_str()), {"127", "'absent' in PATH"});
  require_words(find_refusal("./absent", ""), {"127", "./absent", "No such file"});
  require_words(find_refusal(folder.path() + "/plain/db", ""), {"127", "Not a directory"});
  require_words(find_refusal("", "/bin"), {"127", "empty"});
}

TEST_CASE("what is no file is named") {
  const TemporaryFolder folder;
  REQUIRE(mkfifo((folder.path() + "/pipe").c_str(), 0755) == 0);
  require_words(find_refusal(folder.path(), ""), {"126", "directory"});
  require_words(find_refusal(folder.path() + "/pipe", ""), {"126", "not a regular file"});
  std::filesystem::create_symlink("loop", folder.path() + "/loop");
  require_words(find_refusal(folder.path() + "/loop", ""), {"126", "loop"});
}

}  // namespace dbos::vmm::test
