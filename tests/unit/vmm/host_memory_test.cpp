// What bounds the memory that is there: the cgroups of both versions, at every level.
#include "vmm/host_memory.h"

#include <catch2/catch.hpp>

#include "tests/unit/loader/temporary_folder.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kNone = UINT64_MAX;

class Groups {
 public:
  void limit(const std::string& file, const std::string& text) const {
    const std::string name = "mounts/" + file;
    const std::string path = folder_.path() + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    folder_.write(name, text, 0644);
  }
  uint64_t of(const std::string& membership) const {
    return cgroup_memory_limit(folder_.write("membership", membership, 0644),
                               folder_.path() + "/mounts");
  }

 private:
  test::TemporaryFolder folder_;
};

TEST_CASE("a cgroup of version 2 is bounded by its own limit and by those above it") {
  const Groups groups;
  groups.limit("system.slice/memory.max", "8000000\n");
  groups.limit("system.slice/redis.service/memory.max", "max\n");
  CHECK(groups.of("0::/system.slice/redis.service\n") == 8000000);
  groups.limit("system.slice/redis.service/memory.max", "4000000\n");
  CHECK(groups.of("0::/system.slice/redis.service\n") == 4000000);
  CHECK(groups.of("0::/system.slice\n") == 8000000);
  CHECK(groups.of("0::/user.slice\n") == kNone);
  CHECK(groups.of("0::/\n") == kNone);
}

TEST_CASE("a cgroup of version 1 counts by its controller of memory alone") {
  const Groups groups;
  groups.limit("memory/db/memory.limit_in_bytes", "5000000\n");
  groups.limit("memory/db/small/memory.limit_in_bytes", "6000000\n");
  groups.limit("cpu/db/memory.limit_in_bytes", "1\n");
  CHECK(groups.of("4:cpu,cpuacct:/db\n3:memory:/db/small\n0::/\n") == 5000000);
  CHECK(groups.of("3:hugetlb,memory:/db\n") == 5000000);
  CHECK(groups.of("4:cpu,cpuacct:/db\n") == kNone);
}

TEST_CASE("in a container the limit is at the top of what is mounted") {
  const Groups groups;
  groups.limit("memory.max", "7000000\n");
  CHECK(groups.of("0::/\n") == 7000000);
  CHECK(groups.of("0::/docker/0123abcd\n") == 7000000);
  CHECK(groups.of("0::/../../outside\n") == 7000000);
  groups.limit("memory/memory.limit_in_bytes", "3000000\n");
  CHECK(groups.of("0::/\n9:memory:/docker/0123abcd\n") == 3000000);
}

TEST_CASE("what says nothing about memory bounds nothing") {
  const Groups groups;
  CHECK(groups.of("") == kNone);
  CHECK(groups.of("nonsense\n::\n1:memory\n") == kNone);
  groups.limit("db/memory.max", "not a number\n");
  CHECK(groups.of("0::/db\n") == kNone);
  CHECK(cgroup_memory_limit("/no/such/file", "/no/such/folder") == kNone);
  CHECK(host_memory_size() > 0);
}

}  // namespace
}  // namespace dbos::vmm
