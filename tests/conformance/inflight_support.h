// Memory that a blocked call is to write into, and a child that looks at its own copy of it.
#pragma once

#include "blocked.h"

// Where a buffer lies: within a page; across pages; in memory that can be mapped by one entry of
// 2 MiB; across pages of which only the first ones were ever touched.
enum class Place { kOnePage, kAcrossPages, kLargePage, kHalfTouched };
inline constexpr Place kPlaces[] = {Place::kOnePage, Place::kAcrossPages, Place::kLargePage,
                                    Place::kHalfTouched};

template <typename Places, typename Action>
void with_places(const Places& places, const Action& action) {
  for (const Place place : places) {
    const int before = check::failures.load();
    action(place);
    if (check::failures.load() != before)
      check::print("... of place %d\n", static_cast<int>(place));
  }
}

inline std::string text_of(size_t size, uint64_t seed = 1) {
  std::string text(size + 8, '\0');
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = mix(seed, i);
    memcpy(&text[i], &word, sizeof word);
  }
  text.resize(size);
  return text;
}

class Memory {
 public:
  Memory(Place place, size_t size) {
    const size_t half = (size / 2 + 7) / 8 * 8;
    size_t border = (half + kPage - 1) / kPage * kPage;  // of two pages, within the buffer
    if (place == Place::kLargePage) border += 64 * kPage;
    begin_ = place == Place::kOnePage ? 8 : border - half;
    length_ = (begin_ + size + kPage - 1) / kPage * kPage;
    if (place == Place::kLargePage) length_ = kLarge;
    base_ = static_cast<char*>(map_aligned(length_));
    old_ = text_of(place == Place::kHalfTouched ? border : length_, 7);
    memcpy(base_, old_.data(), old_.size());
    old_.resize(length_, '\0');
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { unmap(); }
  void unmap() {
    if (is_mapped_) munmap(base_, length_);
    is_mapped_ = false;
  }

  // Elsewhere, from where the caller unmaps it.
  void* move() {
    void* to = map_anonymous(length_);
    const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    REQUIRE(mremap(base_, length_, length_, flags, to) == to);
    is_mapped_ = false;
    return to;
  }
  char* at(size_t offset = 0) const { return base_ + begin_ + offset; }
  char* base() const { return base_; }
  size_t length() const { return length_; }

  // Writes before the call: what it is given, or what belongs to the old bytes.
  void put(const void* data, size_t size, size_t offset = 0) {
    memcpy(at(offset), data, size);
    memcpy(&old_[begin_ + offset], data, size);
  }
  template <typename Value>
  Value* put(const Value& value) {
    put(&value, sizeof value);
    return reinterpret_cast<Value*>(at());
  }
  template <typename Value>
  Value get() const {
    Value value;
    memcpy(static_cast<void*>(&value), at(), sizeof value);
    return value;
  }

  // As it was before the call, what surrounds the buffer included.
  bool is_old() const { return is_old_at(base_); }
  // The same of memory that was moved.
  bool is_old_at(const void* base) const { return memcmp(base, old_.data(), length_) == 0; }
  // The buffer begins with these bytes, and nothing else has changed.
  bool is_new(const std::string& text) const {
    std::string expected = old_;
    expected.replace(begin_, text.size(), text);
    return memcmp(base_, expected.data(), length_) == 0;
  }
  // Nothing but the buffer's first bytes has changed.
  bool is_old_behind(size_t size) const {
    return memcmp(base_, old_.data(), begin_) == 0 &&
           memcmp(at(size), &old_[begin_ + size], length_ - begin_ - size) == 0;
  }

 private:
  bool is_mapped_ = true;
  char* base_;
  size_t length_, begin_;
  std::string old_;
};
using Memories = std::vector<const Memory*>;

inline bool are_old(const Memories& memories) {
  return std::all_of(memories.begin(), memories.end(), [](const Memory* m) { return m->is_old(); });
}

// A child that looks at once, and once more when it is told to.
class Onlooker {
 public:
  template <typename Look>
  explicit Onlooker(Look look) {
    child_ = start_child([&] {
      CHECK(look());
      seen_.post();
      told_.close_write();
      told_.take();
      CHECK(look());
    });
    seen_.take();
  }
  void look_again() {
    told_.post();
    CHECK(exited(status_of(child_)));
  }

 private:
  Pipe seen_, told_;
  pid_t child_;
};

// `call` blocks across a fork, and `feed` ends it. The child keeps what was there before.
template <typename Call, typename Feed>
void across_fork(const Memories& memories, std::initializer_list<int> calls, Call call, Feed feed) {
  BlockedCall blocked(calls, call);
  Onlooker child([&] { return are_old(memories); });
  feed();
  blocked.join();
  child.look_again();
}
