// Several threads as vCPUs at once, for ThreadSanitizer and for luck.
//
// A vCPU holds its own mutex for the length of one access through its TLB, and a shootdown takes
// the mutex of every vCPU that is in the address space: what the interrupt of a real machine
// achieves.

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr u32 kWriters = 3;
constexpr u32 kVcpus = 8;
constexpr u64 kPages = 600;  // across a border of 2 MiB
constexpr VirtualAddress kBase{0x1fe0'0000};

class Vcpus {
 public:
  Vcpus() {
    kernel_root_for_tests();
    host::on_shootdown = [this](AddressSpace& space, VirtualRange range) {
      for (Vcpu& vcpu : vcpus_) {
        const std::lock_guard guard(vcpu.mutex);
        if (vcpu.space == &space) vcpu.tlb.forget(range);
      }
    };
    host::on_flush_local = [this](VirtualAddress address) {
      Vcpu& vcpu = vcpus_[platform::current_vcpu()];
      const std::lock_guard guard(vcpu.mutex);
      vcpu.tlb.forget({address, address + kPageSize});
    };
  }
  ~Vcpus() {
    host::on_shootdown = nullptr;
    host::on_flush_local = nullptr;
  }
  void enter(AddressSpace* space) {
    Vcpu& vcpu = vcpus_[platform::current_vcpu()];
    const std::lock_guard guard(vcpu.mutex);
    if (vcpu.space != nullptr) vcpu.space->vcpus().remove(platform::current_vcpu());
    vcpu.space = space;
    if (space != nullptr) space->vcpus().add(platform::current_vcpu());
    vcpu.tlb.forget_all();
  }
  // Calls use(u64&) with the word at the address, as one instruction would.
  template <typename Use>
  FaultKind access(VirtualAddress address, Access how, Use use) {
    Vcpu& vcpu = vcpus_[platform::current_vcpu()];
    while (true) {
      {
        const std::lock_guard guard(vcpu.mutex);
        PhysicalAddress physical;
        if (vcpu.tlb.translate(vcpu.space->root(), address, how, &physical)) {
          use(*pointer_to<u64>(physical));
          return FaultKind::kResolved;
        }
      }
      const FaultKind kind = vcpu.space->handle_fault(address, how);
      if (kind != FaultKind::kResolved) return kind;
    }
  }

 private:
  struct Vcpu {
    std::mutex mutex;
    AddressSpace* space = nullptr;
    Tlb tlb;
  };
  Vcpu vcpus_[kVcpus];
};

u64 rounds() {
  const char* text = std::getenv("THREADS_ROUNDS");
  return text == nullptr ? 60 : std::strtoull(text, nullptr, 0);
}

VirtualAddress word(u64 page, u32 writer) {
  return kBase + page * kPageSize + writer * 64;
}

// Each writer writes 1, 2, 3 ... to one page after the other. A snapshot must have all that was
// written up to a moment and nothing after it.
u64 check_cut(Vcpus& vcpus, u32 writer) {
  u64 newest = 0;
  std::vector<u64> values(kPages);
  for (u64 page = 0; page < kPages; ++page) {
    const FaultKind kind =
        vcpus.access(word(page, writer), Access::kRead, [&](u64& value) { values[page] = value; });
    if (kind != FaultKind::kResolved) throw std::runtime_error("a read failed");
    newest = std::max(newest, values[page]);
  }
  for (u64 page = 0; page < kPages; ++page) {
    // The last value up to `newest` that belongs on this page.
    const u64 behind = (newest + kPages - page) % kPages;
    const u64 expected = newest >= behind ? newest - behind : 0;
    if (values[page] != expected) throw std::runtime_error("the snapshot is not of one moment");
  }
  return newest;
}

}  // namespace

TEST_CASE("snapshots taken while threads write are each of one moment") {
  // Pages of 4 KiB; or of 2 MiB, which writes split and the helper puts together.
  const int page_size_flag = GENERATE(MAP_STACK, 0);
  Vcpus vcpus;
  host::set_vcpu(0);
  AddressSpace* main = AddressSpace::create(kernel_root_for_tests()).value();
  REQUIRE(main->map_anonymous(kBase, kPages * kPageSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | page_size_flag)
              .is_ok());
  std::atomic<bool> stop{false};
  std::atomic<u64> failures{0};
  std::vector<std::thread> threads;
  for (u32 writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      host::set_vcpu(1 + writer);
      vcpus.enter(main);
      for (u64 value = 1; !stop; ++value) {
        const FaultKind kind = vcpus.access(word(value % kPages, writer), Access::kWrite,
                                            [&](u64& at) { at = value; });
        if (kind != FaultKind::kResolved) ++failures;
      }
      vcpus.enter(nullptr);
    });
  }
  // Another one maps, protects and unmaps beside them.
  threads.emplace_back([&] {
    host::set_vcpu(5);
    vcpus.enter(main);
    std::mt19937 random(1);
    const VirtualAddress own = kBase + kPages * kPageSize;
    while (!stop) {
      const VirtualAddress at = own + (random() % 64) * kPageSize;
      const u64 length = (1 + random() % 32) * kPageSize;
      switch (random() % 5) {
        case 0:
          static_cast<void>(main->map_anonymous(at, length, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED));
          break;
        case 1:
          static_cast<void>(main->unmap(at, length));
          break;
        case 2:
          static_cast<void>(main->protect(at, length, PROT_READ));
          break;
        case 3:
          static_cast<void>(main->advise(at, length, MADV_DONTNEED));
          break;
        default:
          vcpus.access(at, Access::kWrite, [](u64& value) { value = 9; });
      }
    }
    vcpus.enter(nullptr);
  });
  // And one has host calls in flight on a page of its own.
  const VirtualAddress buffer = kBase + (kPages + 256) * kPageSize;
  REQUIRE(main->map_anonymous(buffer, kPageSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
              .is_ok());
  threads.emplace_back([&] {
    host::set_vcpu(6);
    u64 value = 0;
    while (!stop) {
      HostSegment segment;
      vcpus.enter(main);
      const ResolveOutcome outcome = main->resolve_for_host(buffer, 8, Access::kWrite, &segment, 1);
      vcpus.enter(nullptr);
      if (outcome.bytes != 8) ++failures;
      std::this_thread::yield();
      // Snapshots copy the page meanwhile, as racily as Linux's fork does.
      __atomic_store_n(pointer_to<u64>(segment.address), ++value, __ATOMIC_RELAXED);
      main->unpin();
      vcpus.enter(main);
      vcpus.access(buffer, Access::kRead, [&](u64& at) {
        if (at != value) ++failures;
      });
    }
    vcpus.enter(nullptr);
  });

  // A helper keeps copies ready, and puts pages together, in time or not.
  if (uses_ready_tables()) REQUIRE(main->keep_ready(2).is_ok());
  threads.emplace_back([&] {
    host::set_vcpu(7);
    while (!stop) {
      if (!main->refill(2) && !main->reassemble(2)) std::this_thread::yield();
    }
  });

  while (uses_ready_tables() && main->ready_counts().ready == 0) std::this_thread::yield();

  // This thread is the one that forks: it enters the snapshot, looks, writes, forks again, leaves.
  std::vector<AddressSpace*> kept;
  try {
    for (u64 round = 0; round < rounds(); ++round) {
      vcpus.enter(main);
      AddressSpace* snapshot = main->snapshot().value();
      vcpus.enter(snapshot);
      for (u32 writer = 0; writer < kWriters; ++writer) check_cut(vcpus, writer);
      for (u64 page = 0; page < kPages; page += 7) {
        vcpus.access(word(page, 10), Access::kWrite, [&](u64& at) { at = round; });
      }
      AddressSpace* second = snapshot->snapshot().value();
      vcpus.enter(second);
      for (u32 writer = 0; writer < kWriters; ++writer) check_cut(vcpus, writer);
      vcpus.enter(nullptr);
      kept.push_back(round % 2 == 0 ? snapshot : second);
      AddressSpace::destroy(round % 2 == 0 ? second : snapshot);
      if (kept.size() > 3) {
        const size_t victim = round % kept.size();
        AddressSpace::destroy(kept[victim]);
        kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(victim));
      }
    }
  } catch (const std::exception& error) {
    FAIL_CHECK(error.what());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  check_memory_invariants();
  if (uses_ready_tables()) {
    const ReadyCounts counts = main->ready_counts();
    CHECK(counts.handed_over + counts.missed == rounds());
    CHECK(counts.handed_over > 0);
  }
  vcpus.enter(nullptr);
  for (AddressSpace* each : kept) AddressSpace::destroy(each);
  AddressSpace::destroy(main);
  check_memory_invariants();
  CHECK(line_count() == 0);
  CHECK(frame_allocator.counts().retired_pages == 0);
}

TEST_CASE("no write is lost when a snapshot comes and goes while pages are put together") {
  Vcpus vcpus;
  host::set_vcpu(0);
  AddressSpace* main = AddressSpace::create(kernel_root_for_tests()).value();
  constexpr VirtualAddress kFirst{0x2000'0000};
  constexpr VirtualAddress kSecond = kFirst + kLargePageSize;
  REQUIRE(main->map_anonymous(kFirst, 2 * kLargePageSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
              .is_ok());
  vcpus.enter(main);
  const auto write = [&](VirtualAddress at, u64 value) {
    vcpus.access(at, Access::kWrite, [&](u64& word) { word = value; });
  };
  std::atomic<bool> stop{false};
  std::thread helper([&] {
    host::set_vcpu(7);
    while (!stop) {
      if (!main->reassemble(2)) std::this_thread::yield();
    }
  });
  std::mt19937 random(1);
  u64 lost = 0;
  for (u64 round = 1; round <= rounds() * 50; ++round) {
    AddressSpace* snapshot = main->snapshot().value();
    write(kFirst, round);  // splits it
    AddressSpace::destroy(snapshot);
    // The helper takes the right to write away and copies, from the first page on.
    const auto may_write = [&] {
      const PteSlot* slot = main->tree().find_table(kFirst);
      return slot != nullptr && slot->load().is_writable();
    };
    for (u32 turns = 100; may_write() && turns > 0; --turns) std::this_thread::yield();
    for (u32 turns = random() % 4; turns > 0; --turns) std::this_thread::yield();
    const VirtualAddress late = kFirst + (1 + random() % 64) * kPageSize;
    write(late, round);
    snapshot = main->snapshot().value();
    write(kSecond, round);  // takes it away again: from all that lies in the same node
    AddressSpace::destroy(snapshot);
    for (u32 turns = random() % 64; turns > 0; --turns) std::this_thread::yield();
    vcpus.access(late, Access::kRead, [&](u64& word) { lost += word != round; });
  }
  stop = true;
  helper.join();
  CHECK(lost == 0);
  CHECK(main->statistics().reassembled_pages > 0);
  vcpus.enter(nullptr);
  AddressSpace::destroy(main);
}

namespace {

// As the system call does it, for one page more than the window has.
void grow_by_a_page(AddressSpace& space, u64 pages) {
  WindowPlace place;
  REQUIRE(space.find_window(kBase, &place));
  const u64 size = (pages + 1) * kPageSize;
  const PhysicalAddress at = host::duplicate_window(place.address(), size);
  WindowObject* object = window_create(at, size, WindowKind::kFile, {}).value();
  const LongerWindow longer{object, place.window.get(), 0};
  CHECK(space.remap(kBase, pages * kPageSize, size, 0, VirtualAddress(0), &longer).is_ok());
  window_release(object);
}

}  // namespace

TEST_CASE("threads see the file while its mapping grows") {
  Vcpus vcpus;
  AddressSpace* main = AddressSpace::create(kernel_root_for_tests()).value();
  const u64 last_page = 8 + 10 * rounds();
  const u64 size = (last_page + 1) * kPageSize;
  const PhysicalAddress file = host::make_window(size, size);
  for (u64 page = 0; page <= last_page; ++page) *pointer_to<u64>(file + page * kPageSize) = page;
  WindowObject* all = window_create(file, size, WindowKind::kFile, {}).value();
  WindowObject* first = window_create(host::duplicate_window(file, 8 * kPageSize), 8 * kPageSize,
                                      WindowKind::kFile, {})
                            .value();
  REQUIRE(
      main->map_window(kBase, 8 * kPageSize, PROT_READ | PROT_WRITE, MAP_FIXED, {first, 0, true})
          .is_ok());
  window_release(first);

  std::atomic<u64> mapped{8};
  std::atomic<u64> failures{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (u32 vcpu = 1; vcpu < 4; ++vcpu) {
    threads.emplace_back([&, vcpu] {
      host::set_vcpu(vcpu);
      vcpus.enter(main);
      std::mt19937 random(vcpu);
      while (!stop) {
        const u64 page = random() % mapped;
        const FaultKind kind = vcpus.access(kBase + page * kPageSize, Access::kRead,
                                            [&](u64& value) { failures += value != page; });
        if (kind != FaultKind::kResolved) ++failures;
      }
      vcpus.enter(nullptr);
    });
  }
  threads.emplace_back([&] {
    host::set_vcpu(4);
    while (!stop) {
      const u64 page = mapped - 1;
      HostSegment segment;
      const ResolveOutcome outcome =
          main->resolve_for_host(kBase + page * kPageSize, 8, Access::kRead, &segment, 1);
      if (outcome.bytes != 8) ++failures;
      std::this_thread::yield();
      failures += *pointer_to<u64>(segment.address) != page;
      main->unpin();
    }
  });
  host::set_vcpu(0);
  for (u64 pages = 8; pages < last_page; ++pages) {
    grow_by_a_page(*main, pages);
    mapped = pages + 1;
    if (pages % 8 == 0) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  check_memory_invariants();
  AddressSpace::destroy(main);
  window_release(all);
}

TEST_CASE("kernel runs that several vCPUs allocate at once are apart") {
  kernel_root_for_tests();
  std::atomic<u64> failures{0};
  std::vector<std::thread> threads;
  for (u32 vcpu = 1; vcpu < 5; ++vcpu) {
    threads.emplace_back([&, vcpu] {
      host::set_vcpu(vcpu);
      std::mt19937 random(vcpu);
      std::vector<std::pair<PhysicalAddress, u32>> runs;
      const auto free_one = [&] {
        std::swap(runs[random() % runs.size()], runs.back());
        const auto [run, order] = runs.back();
        runs.pop_back();
        for (u64 i = 0; i < u64{1} << order; ++i) {
          if (*pointer_to<u64>(run + i * kPageSize) != run.value() + vcpu) ++failures;
        }
        frame_allocator.free_kernel(run, order);
      };
      for (u64 i = 0; i < 200 * rounds(); ++i) {
        const u32 order = static_cast<u32>(random() % 4);
        const PhysicalAddress run = frame_allocator.allocate_kernel(order).value();
        for (u64 frame = 0; frame < u64{1} << order; ++frame) {
          *pointer_to<u64>(run + frame * kPageSize) = run.value() + vcpu;
        }
        runs.emplace_back(run, order);
        if (runs.size() > 300) free_one();
      }
      while (!runs.empty()) free_one();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  check_memory_invariants();
}

}  // namespace dbos::test
