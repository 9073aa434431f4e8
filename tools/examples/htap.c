// Analytics beside transactions: scans of a consistent view of a table that goes on changing.
//
//   htap [MIB [WRITERS [SECONDS]]]      default: 64 MiB, 2 writers, 2 seconds for each row
//
// The table is an array of pairs of cells. A transaction moves an amount from one cell of a pair to
// the other, so a pair's sum never changes, but a scan that sees half of a transaction finds a
// wrong one. The rows differ in what a scan reads: nothing, the live table, a snapshot of
// include/dbos/dbos.h, or the memory of a child that was forked for it by hand.
//
// Exit status: 0 if every scan of a snapshot and of a child was right, 1 if not, 2 if the arguments
// are wrong or something could not be done.
#include <dbos/dbos.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kWritersMax = 64, kPairSum = 1000 };

struct pair {
  _Atomic int64_t left, right;
};

// A writer owns an equal part of the table. It holds its lock for a transaction; all locks together
// stop the world between two transactions.
struct writer {
  pthread_mutex_t lock;
  pthread_t thread;
  struct pair* begin;
  size_t count;
  uint64_t transactions;
  uint64_t longest_ns;
};

struct scan {
  uint64_t pairs;
  uint64_t wrong;
};

struct row {
  uint64_t scans;
  uint64_t wrong;
  uint64_t stall_ns_max;  // of all writers, for one snapshot
  uint64_t held_bytes_max;
};

static struct pair* table;
static size_t pair_count;
static struct writer writers[kWritersMax];
static unsigned writer_count;
static atomic_bool stopping;

static void give_up(const char* what, const char* why) {
  fprintf(stderr, "htap: %s: %s\n", what, why);
  exit(2);
}

static void must(dbos_error error, const char* what) {
  if (error != DBOS_OK) give_up(what, dbos_error_text(error));
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

// ---- Transactions ----

static void transfer(struct writer* writer, uint64_t random) {
  struct pair* const pair = &writer->begin[(random >> 16) % writer->count];
  const int64_t amount = (int64_t)(random % 100);
  pthread_mutex_lock(&writer->lock);
  atomic_fetch_sub_explicit(&pair->left, amount, memory_order_relaxed);
  atomic_fetch_add_explicit(&pair->right, amount, memory_order_relaxed);
  pthread_mutex_unlock(&writer->lock);
}

static void* write_table(void* argument) {
  struct writer* const writer = argument;
  uint64_t random = (uint64_t)(writer - writers) + 88172645463325252U;
  uint64_t before_ns = now_ns();
  while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    transfer(writer, random);
    const uint64_t after_ns = now_ns();
    if (after_ns - before_ns > writer->longest_ns) writer->longest_ns = after_ns - before_ns;
    before_ns = after_ns;
    ++writer->transactions;
  }
  return NULL;
}

static uint64_t stop_world(void) {
  const uint64_t begin_ns = now_ns();
  for (unsigned i = 0; i < writer_count; ++i) pthread_mutex_lock(&writers[i].lock);
  return begin_ns;
}

static void resume_world(struct row* row, uint64_t begin_ns) {
  for (unsigned i = 0; i < writer_count; ++i) pthread_mutex_unlock(&writers[i].lock);
  const uint64_t stall_ns = now_ns() - begin_ns;
  if (stall_ns > row->stall_ns_max) row->stall_ns_max = stall_ns;
}

// ---- Analytics ----

static struct scan scan_table(void) {
  struct scan scan = {0, 0};
  for (size_t i = 0; i < pair_count; ++i) {
    const int64_t left = atomic_load_explicit(&table[i].left, memory_order_relaxed);
    const int64_t right = atomic_load_explicit(&table[i].right, memory_order_relaxed);
    scan.wrong += left + right != kPairSum;
    ++scan.pairs;
  }
  return scan;
}

static void add_scan(struct row* row, const struct scan* scan) {
  if (scan->pairs != pair_count) give_up("scan", "has not seen the whole table");
  row->wrong += scan->wrong;
  ++row->scans;
}

static void scan_nothing(struct row* row) {
  (void)row;
  usleep(10000);
}

static void scan_live(struct row* row) {
  const struct scan scan = scan_table();
  add_scan(row, &scan);
}

static int32_t scan_in_snapshot(const void* argument, size_t size, dbos_result* result) {
  (void)argument, (void)size;
  const struct scan scan = scan_table();
  memcpy(result->bytes, &scan, sizeof scan);
  result->size = sizeof scan;
  return 0;
}

static void scan_snapshot(struct row* row) {
  dbos_snapshot snapshot;
  dbos_run run;
  dbos_snapshot_cost cost;
  struct scan scan;
  const uint64_t begin_ns = stop_world();
  must(dbos_snapshot_create(NULL, &snapshot), "create a snapshot");
  resume_world(row, begin_ns);
  must(dbos_run_start(snapshot, scan_in_snapshot, NULL, 0, &run), "start the scan");
  must(dbos_run_wait(run, -1, NULL, &scan, sizeof scan, NULL), "wait for the scan");
  must(dbos_snapshot_cost_now(snapshot, &cost), "ask for the cost");
  must(dbos_snapshot_release(snapshot), "release the snapshot");
  if (cost.held_bytes > row->held_bytes_max) row->held_bytes_max = cost.held_bytes;
  add_scan(row, &scan);
}

static void scan_fork(struct row* row) {
  int ends[2];
  struct scan scan;
  if (pipe(ends) != 0) give_up("pipe", strerror(errno));
  const uint64_t begin_ns = stop_world();
  const pid_t child = fork();
  if (child == 0) {
    scan = scan_table();
    _exit(write(ends[1], &scan, sizeof scan) != sizeof scan);
  }
  resume_world(row, begin_ns);
  if (child < 0) give_up("fork", strerror(errno));
  close(ends[1]);
  if (read(ends[0], &scan, sizeof scan) != sizeof scan) give_up("scan", "the child has died");
  close(ends[0]);
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
  add_scan(row, &scan);
}

// ---- The table of results
// --------------------------------------------------------------------------

static struct row measure(const char* name, void (*analyse)(struct row*), unsigned seconds) {
  struct row row = {0, 0, 0, 0};
  atomic_store(&stopping, false);
  const uint64_t begin_ns = now_ns();
  for (unsigned i = 0; i < writer_count; ++i) {
    writers[i].transactions = writers[i].longest_ns = 0;
    const int error = pthread_create(&writers[i].thread, NULL, write_table, &writers[i]);
    if (error != 0) give_up("start a writer", strerror(error));
  }
  do {
    analyse(&row);
  } while (now_ns() - begin_ns < seconds * (uint64_t)1000000000);
  atomic_store(&stopping, true);
  uint64_t transactions = 0, longest_ns = 0;
  for (unsigned i = 0; i < writer_count; ++i) {
    pthread_join(writers[i].thread, NULL);
    transactions += writers[i].transactions;
    if (writers[i].longest_ns > longest_ns) longest_ns = writers[i].longest_ns;
  }
  const double elapsed_s = (double)(now_ns() - begin_ns) / 1e9;
  printf("%-16s %14.0f %12.3f %8" PRIu64 " %8" PRIu64 " %12.3f %10.1f\n", name,
         (double)transactions / elapsed_s, (double)longest_ns / 1e6, row.scans, row.wrong,
         (double)row.stall_ns_max / 1e6, (double)row.held_bytes_max / 1048576);
  fflush(stdout);
  return row;
}

static unsigned number(const char* text, unsigned most) {
  char* end;
  errno = 0;
  const unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || *end != 0 || text[0] == '-' || value == 0 || value > most) {
    fprintf(stderr, "htap: '%s' is no number from 1 to %u; usage: htap [MIB [WRITERS [SECONDS]]]\n",
            text, most);
    exit(2);
  }
  return (unsigned)value;
}

// Where the large pages are is no matter of this program: 4 KiB pages, under Linux too.
static void make_table(size_t bytes) {
  void* const memory =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) give_up("memory for the table", strerror(errno));
  (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
  table = memory;
  pair_count = bytes / sizeof(struct pair);
  for (size_t i = 0; i < pair_count; ++i) {
    atomic_init(&table[i].left, kPairSum);
    atomic_init(&table[i].right, 0);
  }
  for (unsigned i = 0; i < writer_count; ++i) {
    const size_t share = pair_count / writer_count;
    pthread_mutex_init(&writers[i].lock, NULL);
    writers[i].begin = table + i * share;
    writers[i].count = share;
  }
}

int main(int argc, char** argv) {
  if (argc > 4) give_up("arguments", "three at most: htap [MIB [WRITERS [SECONDS]]]");
  const unsigned mib = argc > 1 ? number(argv[1], 1 << 20) : 64;
  writer_count = argc > 2 ? number(argv[2], kWritersMax) : 2;
  const unsigned seconds = argc > 3 ? number(argv[3], 3600) : 2;
  make_table((size_t)mib * 1048576);
  printf("table: %u MiB, writers: %u, seconds for each row: %u\n", mib, writer_count, seconds);
  printf("%-16s %14s %12s %8s %8s %12s %10s\n", "scans read", "transactions/s", "longest/ms",
         "scans", "wrong", "max stall/ms", "held/MiB");
  measure("nothing", scan_nothing, seconds);
  measure("the live table", scan_live, seconds);
  const struct row snapshot = measure("a snapshot", scan_snapshot, seconds);
  const struct row child = measure("a forked child", scan_fork, seconds);
  const bool right = snapshot.wrong == 0 && child.wrong == 0;
  puts(right ? "every scan of a snapshot was consistent" : "WRONG: a snapshot was torn");
  return right ? 0 : 1;
}
