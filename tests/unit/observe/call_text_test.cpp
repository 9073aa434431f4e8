// Traced calls: what the guest captures of their arguments, and how they read.
#include <arpa/inet.h>
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/uio.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <random>
#include <string>

#include "guest/process/trace_capture.h"
#include "vmm/observe/call_text.h"

namespace dbos {
namespace {

// The program's memory is this process's; addresses below 4096 are not there.
u64 peek(void* destination, VirtualAddress source, u64 size) {
  if (source.value() < kPageSize) return 0;
  std::memcpy(destination, reinterpret_cast<const void*>(source.value()), size);
  return size;
}

template <typename T>
u64 address_of(const T& object) {
  return reinterpret_cast<u64>(&object);
}

std::string text_of(TraceEvent event) {
  capture_payload(event, peek);
  vmm::Text text;
  vmm::put_event(text, event, 1 << 24);
  return std::string(text.view());
}

TraceEvent call(u32 number, std::initializer_list<u64> arguments, i64 result) {
  TraceEvent event{};
  event.thread_id = 12;
  event.number = number;
  std::copy(arguments.begin(), arguments.end(), event.arguments);
  event.result = result;
  event.begin_ticks = 1000;
  event.end_ticks = 13'000;
  return event;
}

}  // namespace

TEST_CASE("a call reads as strace writes it") {
  // Room behind each string: the guest looks at 64 bytes.
  const char path[128] = "/etc/hostname";
  const char data[128] = "GET key\r\n\x01";
  REQUIRE(text_of(call(__NR_openat,
                       {static_cast<u64>(AT_FDCWD), address_of(path), O_RDONLY | O_CLOEXEC}, 4)) ==
          "[12] openat(AT_FDCWD, \"/etc/hostname\", O_RDONLY|O_CLOEXEC, 0) = 4 <0.000012>");
  REQUIRE(text_of(call(__NR_read, {5, address_of(data), 16384}, 10)) ==
          "[12] read(5, \"GET key\\r\\n\\x01\", 16384) = 10 <0.000012>");
  REQUIRE(text_of(call(__NR_write, {1, address_of(data), 3}, 3)) ==
          "[12] write(1, \"GET\", 3) = 3 <0.000012>");
  REQUIRE(text_of(call(__NR_mmap, {0, 8192, 3, 0x22, ~u64{0}, 0}, 0x7f0000001000)) ==
          "[12] mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = "
          "0x7f0000001000 <0.000012>");
  REQUIRE(text_of(call(__NR_kill, {17, 9}, 0)) == "[12] kill(17, SIGKILL) = 0 <0.000012>");
  REQUIRE(text_of(call(999, {1, 2, 3, 4, 5, 6}, -ENOSYS)) ==
          "[12] syscall_999(1, 2, 3, 4, 5, 6) = -1 ENOSYS (Function not implemented) <0.000012>");
}

TEST_CASE("a call that failed shows no buffer that Linux did not write") {
  const char data[128] = "old";
  REQUIRE(text_of(call(__NR_read, {5, 0x5000, 100}, -EAGAIN)) ==
          "[12] read(5, 0x5000, 100) = -1 EAGAIN (Resource temporarily unavailable) <0.000012>");
  REQUIRE(text_of(call(__NR_write, {5, address_of(data), 3}, -EPIPE)) ==
          "[12] write(5, \"old\", 3) = -1 EPIPE (Broken pipe) <0.000012>");
  REQUIRE(text_of(call(__NR_read, {5, 0x5000, 100}, kInterrupted)) ==
          "[12] read(5, 0x5000, 100) = ? (interrupted by a signal) <0.000012>");
}

TEST_CASE("pointers that lead nowhere are shown as numbers") {
  REQUIRE(text_of(call(__NR_open, {0x10, 0, 0}, -EFAULT)) ==
          "[12] open(0x10, O_RDONLY, 0) = -1 EFAULT (Bad address) <0.000012>");
}

TEST_CASE("structures, addresses and vectors are decoded") {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(6379);
  address.sin_addr.s_addr = htonl(0x7f000001);
  const u32 length = sizeof address;
  REQUIRE(text_of(call(__NR_accept4, {6, address_of(address), address_of(length), 0x80800}, 8)) ==
          "[12] accept4(6, {AF_INET, 127.0.0.1:6379}, [16], 0x80800) = 8 "
          "<0.000012>");
  const int pair[2] = {3, 4};
  REQUIRE(text_of(call(__NR_pipe2, {address_of(pair), O_CLOEXEC}, 0)) ==
          "[12] pipe2([3, 4], 0x80000) = 0 <0.000012>");
  char text[40] = "+OK\r\n";
  const iovec vector[2] = {{text, 5}, {text, 5}};
  REQUIRE(text_of(call(__NR_writev, {7, address_of(vector), 2}, 10)) ==
          "[12] writev(7, [{\"+OK\\r\\n\"}, ...], 2) = 10 <0.000012>");
  const struct { u64 seconds, ns; } time = {1, 5};
  REQUIRE(text_of(call(__NR_nanosleep, {address_of(time), 0}, 0)) ==
          "[12] nanosleep({tv_sec=1, tv_nsec=5}, NULL) = 0 <0.000012>");
}

TEST_CASE("long data is cut and says so") {
  const std::string data(100, 'x');
  REQUIRE(text_of(call(__NR_write, {1, reinterpret_cast<u64>(data.data()), 100}, 100)) ==
          "[12] write(1, \"" + std::string(32, 'x') + "\"..., 100) = 100 <0.000012>");
}

TEST_CASE("a call that does not return has no result, and a fault is no call") {
  TraceEvent event = call(__NR_exit_group, {3}, 0);
  event.flags = kTraceNoResult;
  REQUIRE(text_of(event) == "[12] exit_group(3) = ?");
  event = call(0, {14, 0x10, 0x401000}, 11);
  event.flags = kTraceFault;
  REQUIRE(text_of(event) == "[12] --- SIGSEGV {vector 14, address 0x10, instruction 0x401000} ---");
}

TEST_CASE("no event that a guest may make up breaks the text") {
  std::mt19937_64 random(Catch::rngSeed());
  for (int i = 0; i < 20'000; ++i) {
    TraceEvent event;
    auto* const bytes = reinterpret_cast<uint8_t*>(&event);
    for (size_t at = 0; at < sizeof event; ++at) bytes[at] = static_cast<uint8_t>(random());
    event.number = static_cast<u32>(random() % 470);
    if (random() % 2 == 0) {
      for (u8& size : event.payload_size) size %= 40;
    }
    vmm::Text text;
    vmm::put_event(text, event, static_cast<u32>(random()));
    REQUIRE(text.view().size() <= vmm::Text::kCapacity);
  }
}

}  // namespace dbos
