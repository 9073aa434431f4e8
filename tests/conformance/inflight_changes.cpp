// What happens to the buffer of a call that blocks: more than one fork, a child that forks and
// writes the same pages, and memory calls of another thread instead.
#include "inflight_support.h"

namespace {

// Large enough that Linux writes it where it lies.
constexpr size_t kSize = 20000;

// A thread that reads kSize bytes from a pipe.
struct Reader {
  Pipe pipe;
  std::string text = text_of(kSize);
  ssize_t result = 0;
  int error = 0;
  BlockedCall call;
  explicit Reader(const Memory& memory) : Reader(memory.at()) {}
  explicit Reader(void* at)
      : call({SYS_read, SYS_readv}, [this, at] {
          result = read(pipe.in(), at, kSize);
          error = errno;
        }) {}
  void feed() {
    REQUIRE(write(pipe.out(), text.data(), kSize) == static_cast<ssize_t>(kSize));
    call.join();
  }
  bool failed_with(int expected) const {
    if (result == -1 && error == expected) return true;
    check::print("read gave %zd, errno %s\n", result, check::errno_name(error));
    return false;
  }
};

// Memory whose pages are copied when it is filled, and so lie in frames that were freed before.
class FreshMemory {
 public:
  explicit FreshMemory(size_t length) : length_(length) { memset(at_, 'e', length); }
  FreshMemory(const FreshMemory&) = delete;
  FreshMemory& operator=(const FreshMemory&) = delete;
  ~FreshMemory() { munmap(at_, length_); }
  void fill() {
    Onlooker child([&] { return all_same('e'); });
    memset(at_, 'f', length_);
    child.look_again();
  }
  bool is_intact() const { return all_same('f'); }

 private:
  bool all_same(char letter) const {
    const char* at = offset(at_, 0);
    return at[0] == letter && memcmp(at, at + 1, length_ - 1) == 0;
  }

  size_t length_;
  void* at_ = map_aligned(length_);
};

template <typename Action>
void with_places(const Action& action) {
  constexpr Place places[] = {Place::kAcrossPages, Place::kLargePage, Place::kHalfTouched};
  with_places(places, action);
}

}  // namespace

CASE(each_of_two_children_keeps_its_own_moment) {
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    Onlooker first([&] { return memory.is_old(); });
    const char mark[] = "mark";
    memory.put(mark, sizeof mark, kSize - 100);  // the second one sees it, and the read hides it
    memory.put(mark, sizeof mark, kSize + 8);
    Onlooker second([&] { return memory.is_old(); });
    reader.feed();
    CHECK_EQ(reader.result, kSize);
    CHECK(memory.is_new(reader.text));
    second.look_again();
    first.look_again();
  });
}

CASE(child_that_forks_and_writes_the_same_pages) {
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    Pipe written, told;
    const pid_t child = start_child([&] {
      const std::string own = text_of(200, 2), later = text_of(200, 3);
      memory.put(own.data(), own.size());  // the first pages only
      Onlooker grandchild([&] { return memory.is_old(); });
      memory.put(later.data(), later.size());
      written.post();
      told.take();  // the parent's call has returned
      CHECK(memory.is_old());
      grandchild.look_again();
    });
    written.take();
    reader.feed();
    CHECK_EQ(reader.result, kSize);
    CHECK(memory.is_new(reader.text));
    told.post();
    CHECK(exited(status_of(child)));
  });
}

CASE(call_of_a_child_that_forks) {
  with_places([](Place place) {
    Memory memory(place, kSize);
    const int status = run_child([&] {
      Reader reader(memory);
      Onlooker grandchild([&] { return memory.is_old(); });
      reader.feed();
      CHECK_EQ(reader.result, kSize);
      CHECK(memory.is_new(reader.text));
      grandchild.look_again();
    });
    CHECK(exited(status));
    CHECK(memory.is_old());
  });
}

CASE(call_that_returns_after_the_children_have_ended) {
  with_places([](Place place) {
    FreshMemory fresh(4 * kMiB);
    Memory memory(place, kSize);
    Reader reader(memory);
    for (int i = 0; i < 3; ++i) {
      CHECK(exited(run_child([&] { CHECK(memory.is_old()); })));
    }
    fresh.fill();
    reader.feed();
    CHECK_EQ(reader.result, kSize);
    CHECK(memory.is_new(reader.text));
    CHECK(fresh.is_intact());
  });
}

// ---- Memory that Linux reads ----

namespace {

constexpr size_t kSent = kMiB;  // more than a pipe holds

// A thread that writes kSent letters 'o' to a pipe.
struct Writer {
  Pipe pipe;
  ssize_t result = 0;
  BlockedCall call;
  explicit Writer(const void* at)
      : call({SYS_write, SYS_writev}, [this, at] {
          result = write(pipe.out(), at, kSent);
          pipe.close_write();
        }) {}
  // How many bytes arrive, if all of them are among `letters`, else -1.
  ssize_t drain(const char* letters) {
    ssize_t total = 0;
    char block[16384];
    bool is_good = true;
    for (ssize_t n; (n = read(pipe.in(), block, sizeof block)) > 0; total += n) {
      for (ssize_t i = 0; i < n; ++i) is_good = is_good && strchr(letters, block[i]) != nullptr;
    }
    call.join();
    return is_good ? total : -1;
  }
};

}  // namespace

CASE(memory_that_is_being_sent_is_overwritten_after_a_fork) {
  // The child has the old pages until it ends. They must not be used for anything else then.
  FreshMemory fresh(24 * kMiB);
  char* at = static_cast<char*>(map_aligned(kLarge));
  memset(at, 'o', kLarge);
  Writer writer(at);
  Onlooker child([&] { return all_are(at, kLarge, 'o'); });
  memset(at, 'x', kLarge);
  child.look_again();
  fresh.fill();
  CHECK_EQ(writer.drain("ox"), kSent);
  CHECK_EQ(writer.result, kSent);
  munmap(at, kLarge);
}

CASE(memory_that_is_being_sent_is_unmapped) {
  FreshMemory fresh(24 * kMiB);
  char* at = static_cast<char*>(map_aligned(kLarge));
  memset(at, 'o', kLarge);
  Writer writer(at);
  munmap(at, kLarge);
  fresh.fill();
  CHECK(writer.drain("o") > 0);
}

// ---- Memory calls while the read waits ----

CASE(frames_of_an_unmapped_buffer_are_not_used_again) {
  with_places([](Place place) {
    FreshMemory fresh(4 * kMiB);
    Memory memory(place, kSize);
    Reader reader(memory);
    memory.unmap();
    fresh.fill();
    reader.feed();
    CHECK(fresh.is_intact());
  });
}

CASE(buffer_that_may_not_be_written_any_more_is_forked) {
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    CHECK_EQ(mprotect(memory.base(), memory.length(), PROT_READ), 0);
    Onlooker child([&] { return memory.is_old(); });
    reader.feed();
    child.look_again();
  });
}

CASE(buffer_that_was_moved_is_forked) {
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    void* to = memory.move();
    Onlooker child([&] { return memory.is_old_at(to); });
    reader.feed();
    child.look_again();
    munmap(to, memory.length());
  });
}

CASE(read_fails_where_its_buffer_has_gone) {
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    memory.unmap();
    reader.feed();
    CHECK(reader.failed_with(EFAULT));
  });
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    CHECK_EQ(mprotect(memory.base(), memory.length(), PROT_READ), 0);
    reader.feed();
    CHECK(memory.is_old());
    CHECK(reader.failed_with(EFAULT));
  });
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    void* to = memory.move();
    reader.feed();
    CHECK(memory.is_old_at(to));
    CHECK(reader.failed_with(EFAULT));
    munmap(to, memory.length());
  });
}

CASE(read_arrives_in_the_memory_that_took_the_place_of_its_buffer) {
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    CHECK(mmap(memory.base(), memory.length(), PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory.base());
    reader.feed();
    CHECK_EQ(reader.result, kSize);
    CHECK(memcmp(memory.at(), reader.text.data(), kSize) == 0);
  });
  with_places([](Place place) {
    Memory memory(place, kSize);
    Reader reader(memory);
    CHECK_EQ(madvise(memory.base(), memory.length(), MADV_DONTNEED), 0);
    reader.feed();
    CHECK_EQ(reader.result, kSize);
    CHECK(memcmp(memory.at(), reader.text.data(), kSize) == 0);
  });
}

CHECK_MAIN
