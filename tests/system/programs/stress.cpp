// Random transactions on memory, while snapshots of it come every second, look, write, fork and are
// killed. A plain Linux program: natively a snapshot is what Linux's fork() makes.
//
//   stress SECONDS [MIB [SEED]]
//
// What each process checks of the memory it sees:
// - The balances of each writer's accounts add up to 0: a transfer touches two pages.
// - Each balance has its complement in a page far away, written by the same transfer.
// - The mappings in the table of mappings hold what the table says, which another thread maps,
//   moves, cuts and empties all the time.
// - A snapshot that does not write sees the same each time.
// A transaction holds `gate` shared, a fork exclusively, as a database would do it.
//
// Twice a minute, and at the end, all children are gone and nothing is mapped beyond the accounts:
// 'quiet N: ...' is printed then, and a line read from standard input, so that memory can be
// counted meanwhile. Exit status: 0 if all was as it must be; 1 with the seed on standard error.
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <vector>

namespace {

constexpr size_t kPage = 4096;
constexpr int kWriters = 2;
constexpr size_t kChildrenMax = 4;
constexpr size_t kMappings = 48;
constexpr int kQuietEvery_s = 30;
constexpr int kTransfersAtOnce = 16;

using Random = std::mt19937_64;

struct Account {
  int64_t balance;
  int64_t complement;  // of the balance of another account, see twin_of
  uint64_t unused[6];
};

struct Mapping {
  char* at;  // null: none
  size_t pages;
  size_t filled;  // so many pages hold `seed`'s words, the others are zero
  uint64_t seed;
};

// What a snapshot has too, because it is in memory.
Account* accounts;
size_t account_count;
Mapping mappings[kMappings];

uint64_t base_seed;
pthread_rwlock_t gate;
std::atomic<bool> ends{false};
std::atomic<uint64_t> transfers{0};

[[noreturn]] void fail(const char* what, uint64_t where) {
  fprintf(stderr, "stress: process %d: %s (%llu); seed %llu\n", getpid(), what,
          static_cast<unsigned long long>(where), static_cast<unsigned long long>(base_seed));
  _exit(1);
}

uint64_t below(Random& random, uint64_t bound) {
  return random() % bound;
}

double now_s() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void sleep_ms(uint64_t ms) {
  const timespec time = {static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000 * 1000000)};
  nanosleep(&time, nullptr);
}

// --- Accounts ----------------------------------------------------------------------------------

size_t twin_of(size_t account) {
  return (account + account_count / 2) % account_count;
}

void add(size_t account, int64_t amount) {
  accounts[account].balance += amount;
  accounts[twin_of(account)].complement = ~accounts[account].balance;
}

// Between two accounts of one writer: those whose number leaves `writer` when divided.
void transfer(Random& random, int writer) {
  const size_t share = account_count / kWriters;
  const size_t from = below(random, share) * kWriters + static_cast<size_t>(writer);
  const size_t to = below(random, share) * kWriters + static_cast<size_t>(writer);
  const auto amount = static_cast<int64_t>(below(random, 1000));
  add(from, -amount);
  add(to, amount);
}

void check_accounts() {
  int64_t sums[kWriters] = {};
  for (size_t i = 0; i < account_count; ++i) {
    sums[i % kWriters] += accounts[i].balance;
    if (accounts[twin_of(i)].complement != ~accounts[i].balance) fail("a torn transfer", i);
  }
  for (int writer = 0; writer < kWriters; ++writer) {
    if (sums[writer] != 0) fail("money is lost", static_cast<uint64_t>(writer));
  }
}

// --- Mappings ----------------------------------------------------------------------------------

uint64_t word_of(uint64_t seed, size_t page) {
  return (seed + page) * 0x9e3779b97f4a7c15u | 1;
}

uint64_t& first_word(const Mapping& mapping, size_t page) {
  return *reinterpret_cast<uint64_t*>(mapping.at + page * kPage);
}

void fill(Mapping& mapping, uint64_t seed) {
  mapping.seed = seed;
  mapping.filled = mapping.pages;
  for (size_t page = 0; page < mapping.pages; ++page) {
    first_word(mapping, page) = word_of(seed, page);
  }
}

void check_mapping(const Mapping& mapping) {
  for (size_t page = 0; mapping.at != nullptr && page < mapping.pages; ++page) {
    const uint64_t wanted = page < mapping.filled ? word_of(mapping.seed, page) : 0;
    if (first_word(mapping, page) != wanted) fail("a mapping holds something else", page);
  }
}

// Now and then as large as two pages of 2 MiB.
size_t random_pages(Random& random) {
  return 1 + below(random, below(random, 8) == 0 ? 1024 : 64);
}

void map(Mapping& mapping, Random& random) {
  mapping.pages = random_pages(random);
  void* const at = mmap(nullptr, mapping.pages * kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("mmap", mapping.pages);
  mapping.at = static_cast<char*>(at);
  fill(mapping, random());
}

void unmap(Mapping& mapping) {
  if (munmap(mapping.at, mapping.pages * kPage) != 0) fail("munmap", mapping.pages);
  mapping = {};
}

void resize(Mapping& mapping, Random& random) {
  const size_t pages = random_pages(random);
  void* const at = mremap(mapping.at, mapping.pages * kPage, pages * kPage, MREMAP_MAYMOVE);
  if (at == MAP_FAILED) fail("mremap", pages);
  mapping.at = static_cast<char*>(at);
  mapping.pages = pages;
  mapping.filled = std::min(mapping.filled, pages);
}

// The pages from a random one on.
void empty(Mapping& mapping, Random& random) {
  const size_t first = below(random, mapping.pages);
  if (madvise(mapping.at + first * kPage, (mapping.pages - first) * kPage, MADV_DONTNEED) != 0) {
    fail("madvise", first);
  }
  mapping.filled = std::min(mapping.filled, first);
}

void protect_and_back(const Mapping& mapping) {
  const size_t length = mapping.pages * kPage;
  const bool failed = mprotect(mapping.at, length, PROT_READ) != 0 ||
                      mprotect(mapping.at, length, PROT_READ | PROT_WRITE) != 0;
  if (failed) fail("mprotect", mapping.pages);
}

void change_a_mapping(Random& random) {
  Mapping& mapping = mappings[below(random, kMappings)];
  if (mapping.at == nullptr) return map(mapping, random);
  switch (below(random, 6)) {
    case 0:
      return unmap(mapping);
    case 1:
      return resize(mapping, random);
    case 2:
      return empty(mapping, random);
    case 3:
      return protect_and_back(mapping);
    case 4:
      return check_mapping(mapping);
    default:
      return fill(mapping, random());
  }
}

void unmap_all() {
  for (Mapping& mapping : mappings) {
    if (mapping.at != nullptr) unmap(mapping);
  }
}

void check_all() {
  check_accounts();
  for (const Mapping& mapping : mappings) check_mapping(mapping);
}

uint64_t hash_of_all() {
  uint64_t hash = 0;
  for (size_t i = 0; i < account_count; ++i) {
    hash = hash * 31 + static_cast<uint64_t>(accounts[i].balance);
  }
  for (const Mapping& mapping : mappings) hash = hash * 31 + mapping.seed + mapping.filled;
  return hash;
}

// --- Threads of the main process ---------------------------------------------------------------

void* write_on(void* argument) {
  const int writer = static_cast<int>(reinterpret_cast<intptr_t>(argument));
  Random random(base_seed + 1 + static_cast<uint64_t>(writer));
  while (!ends.load()) {
    pthread_rwlock_rdlock(&gate);
    for (int i = 0; i < kTransfersAtOnce; ++i) transfer(random, writer);
    pthread_rwlock_unlock(&gate);
    transfers.fetch_add(kTransfersAtOnce, std::memory_order_relaxed);
    if (below(random, 64) == 0) sleep_ms(1);
  }
  return nullptr;
}

void* map_on(void*) {
  Random random(base_seed + 100);
  while (!ends.load()) {
    pthread_rwlock_rdlock(&gate);
    change_a_mapping(random);
    pthread_rwlock_unlock(&gate);
    if (below(random, 4) == 0) sleep_ms(1);
  }
  return nullptr;
}

// --- Children ----------------------------------------------------------------------------------

void look(Random& random) {
  const uint64_t before = hash_of_all();
  const uint64_t rounds = below(random, 5);
  for (uint64_t i = 0; i < rounds; ++i) {
    sleep_ms(below(random, 1000));
    check_all();
    if (hash_of_all() != before) fail("a snapshot has changed", i);
  }
}

// Until it is killed.
[[noreturn]] void look_on(Random& random) {
  while (true) look(random);
}

void write_and_map(Random& random) {
  for (int i = 0; i < 40; ++i) {
    for (int j = 0; j < 500; ++j) transfer(random, j % kWriters);
    change_a_mapping(random);
    sleep_ms(below(random, 40));
  }
  check_all();
}

void live(Random& random);

void fork_and_write(Random& random) {
  const uint64_t seed = random();
  const pid_t child = fork();
  if (child < 0) return;  // too many processes, or no memory: that is no torn view
  if (child == 0) {
    Random own(seed);
    live(own);
  }
  write_and_map(random);
  int status = 0;
  if (waitpid(child, &status, 0) != child) fail("waitpid", static_cast<uint64_t>(child));
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fail("a grandchild's end", static_cast<uint64_t>(status));
  }
}

[[noreturn]] void end_child(Random& random) {
  if (below(random, 2) == 0) unmap_all();
  _exit(0);
}

// The life of a snapshot.
void live(Random& random) {
  check_all();
  switch (below(random, 4)) {
    case 0:
      fork_and_write(random);
      break;
    case 1:
      write_and_map(random);
      break;
    default:
      look(random);
  }
  end_child(random);
}

// --- The main process --------------------------------------------------------------------------

struct Child {
  pid_t id;
  bool is_killed;
};

class Family {
 public:
  explicit Family(uint64_t seed) : random_(seed) {}

  // The first ones after a rest stay until there are as many as there may be.
  void add_snapshot() {
    if (children_.size() == kChildrenMax) make_room();
    const uint64_t seed = random_();
    const bool stays = staying_ > 0;
    pthread_rwlock_wrlock(&gate);
    const pid_t child = fork();
    if (child == 0) {
      Random own(seed);
      if (stays) look_on(own);
      live(own);
    }
    pthread_rwlock_unlock(&gate);
    if (child < 0) fail("fork", 0);
    children_.push_back({child, false});
    ++snapshots;
    most_alive = std::max(most_alive, alive());
    if (stays) {
      if (--staying_ == 0) kill_all();
    } else if (chance(6)) {
      kill_child(children_.back());  // before it has begun
    }
  }

  void kill_one() {
    if (staying_ > 0 || children_.empty()) return;
    kill_child(children_[below(random_, children_.size())]);
  }

  // Until all are gone.
  void rest() {
    if (staying_ > 0) kill_all();
    reap(0);
    staying_ = kChildrenMax;
  }

  void reap(int options) {
    int status = 0;
    for (pid_t id; (id = waitpid(-1, &status, options)) > 0;) note_end(id, status);
  }

  bool chance(uint64_t one_of) { return below(random_, one_of) == 0; }
  uint64_t number(uint64_t bound) { return below(random_, bound); }

  uint64_t snapshots = 0;
  uint64_t killed = 0;
  size_t most_alive = 0;

 private:
  size_t alive() const {
    return static_cast<size_t>(std::count_if(children_.begin(), children_.end(),
                                             [](const Child& child) { return !child.is_killed; }));
  }

  void kill_all() {
    for (Child& child : children_) kill_child(child);
  }

  void kill_child(Child& child) {
    if (child.is_killed) return;
    kill(child.id, SIGKILL);
    child.is_killed = true;
    ++killed;
  }

  void make_room() {
    if (chance(2)) kill_one();
    while (children_.size() == kChildrenMax) {
      int status = 0;
      const pid_t id = waitpid(-1, &status, 0);
      if (id < 0) fail("wait", children_.size());
      note_end(id, status);
    }
  }

  // An orphan of a killed child may come as well.
  void note_end(pid_t id, int status) {
    const auto child = std::find_if(children_.begin(), children_.end(),
                                    [id](const Child& one) { return one.id == id; });
    const bool may_be_killed = child == children_.end() || child->is_killed;
    const bool is_good = (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                         (may_be_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    if (!is_good) fail("a snapshot's end", static_cast<uint64_t>(status));
    if (child != children_.end()) children_.erase(child);
  }

  Random random_;
  std::vector<Child> children_;
  size_t staying_ = kChildrenMax;  // so many more are to stay
};

void rest(Family& family, int count, double begin) {
  family.rest();
  pthread_rwlock_wrlock(&gate);
  check_all();
  unmap_all();
  printf("quiet %d: %.0f s, %llu transfers, %llu snapshots, %llu killed, %zu alive at once\n",
         count, now_s() - begin, static_cast<unsigned long long>(transfers.load()),
         static_cast<unsigned long long>(family.snapshots),
         static_cast<unsigned long long>(family.killed), family.most_alive);
  fflush(stdout);
  char line[64];
  static_cast<void>(fgets(line, sizeof line, stdin));
  pthread_rwlock_unlock(&gate);
}

void make_accounts(size_t mib) {
  account_count = (mib << 20) / sizeof(Account);
  void* const at =
      mmap(nullptr, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("mmap", mib);
  accounts = static_cast<Account*>(at);
  for (size_t i = 0; i < account_count; ++i) accounts[i].complement = ~int64_t{0};
}

void make_gate() {
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  // A fork must not wait for ever.
  pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(&gate, &attributes);
}

void run(double seconds) {
  Family family(base_seed);
  std::vector<pthread_t> threads(kWriters + 1);
  for (intptr_t i = 0; i < kWriters; ++i) {
    pthread_create(&threads[static_cast<size_t>(i)], nullptr, write_on, reinterpret_cast<void*>(i));
  }
  pthread_create(&threads.back(), nullptr, map_on, nullptr);
  const double begin = now_s();
  double next_rest = begin + kQuietEvery_s;
  int rests = 0;
  while (now_s() < begin + seconds) {
    const uint64_t pause = family.number(1000);
    sleep_ms(pause);
    if (family.chance(4)) family.kill_one();
    sleep_ms(1000 - pause);
    family.reap(WNOHANG);
    family.add_snapshot();
    if (now_s() < next_rest) continue;
    rest(family, ++rests, begin);
    next_rest = now_s() + kQuietEvery_s;
  }
  rest(family, ++rests, begin);
  ends.store(true);
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
}

}  // namespace

int main(int count, char** arguments) {
  const double seconds = count > 1 ? atof(arguments[1]) : 0;
  const long mib = count > 2 ? atol(arguments[2]) : 48;
  if (seconds <= 0 || mib <= 0) {
    fputs("usage: stress SECONDS [MIB [SEED]]\n", stderr);
    return 2;
  }
  base_seed = count > 3 ? strtoull(arguments[3], nullptr, 0) : std::random_device()();
  printf("seed %llu\n", static_cast<unsigned long long>(base_seed));
  fflush(stdout);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  make_accounts(static_cast<size_t>(mib));
  make_gate();
  run(seconds);
  printf("no torn view\n");
  return 0;
}
