// System V shared memory: attaching, where and how; what the children and the maps see; detaching
// what is left; removal; the errors.

#include <sys/ipc.h>
#include <sys/shm.h>

#include "support.h"

namespace {

constexpr size_t kSize = 4 * kPage;

// A private segment, removed with the last attachment or with this.
struct Segment {
  int id;
  explicit Segment(size_t size = kSize, int flags = 0600)
      : id(shmget(IPC_PRIVATE, size, flags | IPC_CREAT)) {
    REQUIRE(id != -1);
  }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  ~Segment() { shmctl(id, IPC_RMID, nullptr); }
};

void* attach(int id, int flags = 0, const void* at = nullptr) {
  void* address = shmat(id, at, flags);
  REQUIRE(address != reinterpret_cast<void*>(-1));
  return address;
}
long attaching(int id, const void* at, int flags) {
  return reinterpret_cast<long>(shmat(id, at, flags));
}
shmid_ds status_of_segment(int id) {
  shmid_ds status = {};
  REQUIRE(shmctl(id, IPC_STAT, &status) == 0);
  return status;
}

}  // namespace

CASE(segment_is_zero_and_shared_by_its_attachments) {
  const Segment segment;
  void* first = attach(segment.id);
  void* second = attach(segment.id);
  CHECK(first != second);
  CHECK(all_are(first, kSize, 0));
  fill(first, kSize, 1);
  CHECK(filled(second, kSize, 1));
  CHECK_EQ(status_of_segment(segment.id).shm_nattch, 2);
  CHECK_EQ(status_of_segment(segment.id).shm_segsz, kSize);
  CHECK_EQ(shmdt(first), 0);
  CHECK(!readable(first));
  CHECK_EQ(status_of_segment(segment.id).shm_nattch, 1);
  CHECK_EQ(shmdt(second), 0);
  CHECK_EQ(status_of_segment(segment.id).shm_nattch, 0);
  void* again = attach(segment.id);
  CHECK(filled(again, kSize, 1));
  CHECK_EQ(shmdt(again), 0);
}

CASE(segment_is_shared_with_children_and_theirs) {
  const Segment segment;
  void* at = attach(segment.id);
  fill(at, kSize, 1);
  CHECK(exited(run_child([&] {
    CHECK(filled(at, kSize, 1));
    fill(at, kSize, 2);
    CHECK(exited(run_child([&] {
      CHECK(filled(at, kSize, 2));
      fill(at, kSize, 3);
    })));
    CHECK_EQ(shmdt(at), 0);
    CHECK(!readable(at));
  })));
  CHECK(filled(at, kSize, 3));
  void* of_child = nullptr;
  CHECK(exited(run_child([&] {
    of_child = attach(segment.id);
    CHECK(filled(of_child, kSize, 3));
    fill(of_child, kSize, 4);
  })));
  CHECK(filled(at, kSize, 4));
  CHECK_EQ(shmdt(at), 0);
}

CASE(segment_by_its_key) {
  const key_t key = 0x5eed0000 | (getpid() & 0xffff);
  const int id = shmget(key, kSize, IPC_CREAT | IPC_EXCL | 0600);
  REQUIRE(id != -1);
  CHECK_ERRNO(shmget(key, kSize, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
  CHECK_EQ(shmget(key, 0, 0), id);
  CHECK_EQ(shmget(key, kSize, 0600), id);
  CHECK_ERRNO(shmget(key, kSize + 1, 0), EINVAL);
  void* at = attach(id);
  char name[64];
  snprintf(name, sizeof name, "/SYSV%08x (deleted)", static_cast<unsigned>(key));
  CHECK(map_of(at).name == name);
  CHECK(map_of(at).permissions == "rw-s");
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
  CHECK_ERRNO(shmget(key, 0, 0), ENOENT);
  fill(at, kSize, 5);  // what is removed goes with its last attachment
  CHECK(filled(at, kSize, 5));
  void* second = attach(id);
  CHECK(filled(second, kSize, 5));
  CHECK_EQ(shmdt(at), 0);
  CHECK_EQ(shmdt(second), 0);
  CHECK_ERRNO(attaching(id, nullptr, 0), EINVAL);
}

CASE(attaching_read_only) {
  const Segment segment;
  void* at = attach(segment.id);
  *bytes(at) = 7;
  void* look = attach(segment.id, SHM_RDONLY);
  CHECK_EQ(*bytes(look), 7);
  CHECK(is(fault_of([look] { *bytes(look) = 8; }), SIGSEGV, SEGV_ACCERR, look));
  CHECK_ERRNO(mprotect(look, kPage, PROT_READ | PROT_WRITE), EACCES);
  CHECK(map_of(look).permissions == "r--s");
  CHECK_EQ(shmdt(look), 0);
  CHECK_EQ(shmdt(at), 0);
}

CASE(attaching_for_execution) {
  const Segment segment(kSize, 0700);
  void* at = attach(segment.id, SHM_EXEC);
  CHECK(map_of(at).permissions == "rwxs");
  static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};  // mov $42, %eax; ret
  memcpy(at, code, sizeof code);
  int (*function)() = nullptr;
  memcpy(&function, &at, sizeof at);
  CHECK_EQ(function(), 42);
  CHECK_EQ(shmdt(at), 0);
}

CASE(attaching_at_an_address) {
  const Segment segment;
  char* room = static_cast<char*>(map_anonymous(4 * kSize, PROT_NONE));
  CHECK_ERRNO(attaching(segment.id, room + kPage, 0), EINVAL);      // taken
  CHECK_ERRNO(attaching(segment.id, room + 1, SHM_REMAP), EINVAL);  // not a page
  CHECK_ERRNO(attaching(segment.id, nullptr, SHM_REMAP), EINVAL);   // where?
  CHECK(attach(segment.id, SHM_REMAP, room + kPage) == room + kPage);
  CHECK(layout_is(room, 4 * kSize, "---p:1 rw-s:4 ---p:11"));
  munmap(room, 4 * kSize);
  CHECK(attach(segment.id, 0, room) == room);
  CHECK_ERRNO(attaching(segment.id, room + kSize - kPage, 0), EINVAL);
  CHECK(attach(segment.id, SHM_RND, room + kSize + 100) == room + kSize);
  CHECK(layout_is(room, 4 * kSize, "rw-s:8 hole:8"));
  *bytes(room) = 3;
  CHECK_EQ(*bytes(room, kSize), 3);
  CHECK_EQ(shmdt(room), 0);
  CHECK(layout_is(room, 4 * kSize, "hole:4 rw-s:4 hole:8"));
  CHECK_EQ(shmdt(room + kSize), 0);
  CHECK_ERRNO(shmdt(room + kSize), EINVAL);
}

CASE(detaching_what_is_left) {
  const Segment segment;
  char* at = static_cast<char*>(attach(segment.id));
  CHECK_ERRNO(shmdt(at + kPage), EINVAL);
  CHECK_ERRNO(shmdt(at + 1), EINVAL);
  CHECK_EQ(munmap(at + kPage, kPage), 0);
  CHECK_EQ(mprotect(at + 2 * kPage, kPage, PROT_READ), 0);
  CHECK(layout_is(at, kSize, "rw-s:1 hole:1 r--s:1 rw-s:1"));
  CHECK_EQ(shmdt(at), 0);
  CHECK(layout_is(at, kSize, "hole:4"));
  // The first page has gone, and another mapping lies between.
  CHECK(attach(segment.id, 0, at) == at);
  CHECK_EQ(munmap(at, kPage), 0);
  CHECK(mmap(at + 2 * kPage, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        at + 2 * kPage);
  CHECK_EQ(shmdt(at), 0);
  CHECK(layout_is(at, kSize, "hole:2 r--p:1 hole:1"));
  munmap(at + 2 * kPage, kPage);
  void* other = map_anonymous(kPage);
  CHECK_ERRNO(shmdt(other), EINVAL);
  munmap(other, kPage);
}

CASE(moved_attachment) {
  const Segment segment;
  void* at = attach(segment.id);
  fill(at, kSize, 6);
  void* moved =
      mremap(at, kSize, kSize, MREMAP_MAYMOVE | MREMAP_FIXED, map_anonymous(kSize, PROT_NONE));
  REQUIRE(moved != MAP_FAILED);
  CHECK(filled(moved, kSize, 6));
  CHECK_ERRNO(shmdt(at), EINVAL);
  CHECK_EQ(shmdt(moved), 0);
  CHECK_EQ(status_of_segment(segment.id).shm_nattch, 0);
}

CASE(attachment_that_grows) {
  const Segment segment;
  void* at = attach(segment.id);
  fill(at, kSize, 7);
  for (const size_t size : {2 * kSize, 4 * kSize}) {
    at = mremap(at, size / 2, size, MREMAP_MAYMOVE);
    REQUIRE(at != MAP_FAILED);
    CHECK(filled(at, kSize, 7));
    void* beyond = offset(at, kSize + 5);
    CHECK(is(fault_of([=] { *bytes(beyond) = 1; }), SIGBUS, BUS_ADRERR, beyond));
    CHECK_EQ(status_of_segment(segment.id).shm_nattch, 1);
  }
  CHECK_EQ(shmdt(at), 0);
  CHECK(layout_is(at, 4 * kSize, "hole:16"));
  CHECK_EQ(status_of_segment(segment.id).shm_nattch, 0);
}

CASE(segment_smaller_than_its_pages) {
  const Segment segment(100);
  void* at = attach(segment.id);
  CHECK_EQ(status_of_segment(segment.id).shm_segsz, 100);
  memset(at, 1, kPage);
  CHECK(map_of(at).end - map_of(at).start == kPage);
  CHECK_EQ(shmdt(at), 0);
}

CASE(large_segment_and_host_calls_on_it) {
  const size_t size = 64 * kMiB;
  const Segment segment(size);
  void* at = attach(segment.id);
  fill(at, size, 9);
  CHECK(exited(run_child([&] { CHECK(filled(at, size, 9)); })));
  Pipe pipe;
  CHECK_EQ(write(pipe.out(), offset(at, size - 10), 10), 10);
  CHECK_EQ(read(pipe.in(), offset(at, 5), 10), 10);
  CHECK(memcmp(offset(at, 5), offset(at, size - 10), 10) == 0);
  CHECK_EQ(shmdt(at), 0);
  CHECK_ERRNO(write(pipe.out(), at, 1), EFAULT);
}

CASE(status_and_limits) {
  const Segment segment;
  shmid_ds status = status_of_segment(segment.id);
  CHECK_EQ(status.shm_cpid, getpid());
  CHECK_EQ(status.shm_perm.mode & 0777, 0600);
  CHECK_EQ(status.shm_atime, 0);
  status.shm_perm.mode = 0640;
  CHECK_EQ(shmctl(segment.id, IPC_SET, &status), 0);
  CHECK_EQ(status_of_segment(segment.id).shm_perm.mode & 0777, 0640);
  shminfo limits = {};
  CHECK(shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits)) >= 0);
  CHECK_EQ(limits.shmmin, 1);
  shm_info used = {};
  CHECK(shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&used)) >= 0);
  CHECK(used.used_ids >= 1);
  CHECK_ERRNO(shmctl(segment.id, IPC_STAT, nullptr), EFAULT);
  void* at = attach(segment.id);
  CHECK_EQ(status_of_segment(segment.id).shm_lpid, getpid());
  CHECK_EQ(shmdt(at), 0);
}

CASE(errors_of_shmget_and_shmat) {
  CHECK_ERRNO(shmget(IPC_PRIVATE, 0, IPC_CREAT | 0600), EINVAL);
  CHECK_ERRNO(shmget(IPC_PRIVATE, kPage, IPC_CREAT | SHM_HUGETLB | 0600), ENOMEM);
  CHECK_ERRNO(shmget(0x5eedffff, kPage, 0), ENOENT);
  CHECK_ERRNO(attaching(-1, nullptr, 0), EINVAL);
  CHECK_ERRNO(attaching(0x7fffffff, nullptr, 0), EINVAL);
  CHECK_ERRNO(shmctl(0x7fffffff, IPC_RMID, nullptr), EINVAL);
}

CHECK_MAIN
