#include <catch2/catch.hpp>

#include <csignal>
#include <cstring>
#include <numeric>

#include "vmm/debug/gdb_registers.h"

using dbos::vmm::Avx;
using dbos::vmm::gdb_all_registers;
using dbos::vmm::gdb_register_value;
using dbos::vmm::gdb_registers;
using dbos::vmm::Registers;
using dbos::vmm::set_gdb_all_registers;
using dbos::vmm::set_gdb_register;

namespace {

size_t number_of(const std::string& name) {
  const auto& list = gdb_registers(Avx::kYes);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].name == name) return i;
  }
  FAIL("no register " + name);
  return 0;
}

uint64_t value_of(const Registers& registers, const std::string& name) {
  const auto bytes = gdb_register_value(registers, Avx::kYes, number_of(name));
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

Registers sample() {
  Registers registers{};
  registers.has_special = true;
  registers.general.rax = 0x1122334455667788;
  registers.general.rip = 0x7fff00001000;
  registers.general.rflags = 0x246;
  registers.general.cs = 8;
  registers.general.vector = dbos::kSystemCallVector;
  registers.general.error_code = 232;
  registers.fs_base = 0x7f0000000740;
  // FXSAVE: control word, mxcsr, xmm1; XSTATE_BV; ymm1's upper half.
  registers.extended[0] = 0x7f;
  registers.extended[1] = 0x03;
  registers.extended[24] = 0x80;
  registers.extended[25] = 0x1f;
  registers.extended[160 + 16] = 0xab;
  registers.extended[512] = 7;
  registers.extended[576 + 16] = 0xcd;
  return registers;
}

}  // namespace

TEST_CASE("gdb's standard features have the registers that gdb demands") {
  REQUIRE(gdb_registers(Avx::kYes).size() == 76);
  REQUIRE(gdb_registers(Avx::kNo).size() == 60);
  REQUIRE(number_of("rip") == 16);
  REQUIRE(number_of("st0") == 24);
  REQUIRE(number_of("xmm0") == 40);
  REQUIRE(number_of("ymm15h") == 75);
  const std::string xml = dbos::vmm::gdb_target_description(Avx::kYes);
  for (const char* feature : {"core", "sse", "linux", "segments", "avx"}) {
    REQUIRE(xml.find("org.gnu.gdb.i386." + std::string(feature) + "\"") != std::string::npos);
  }
  REQUIRE(xml.find("<osabi>GNU/Linux</osabi>") != std::string::npos);
  REQUIRE(dbos::vmm::gdb_target_description(Avx::kNo).find("ymm") == std::string::npos);
}

TEST_CASE("values are found where the frame and XSAVE have them") {
  const Registers registers = sample();
  REQUIRE(value_of(registers, "rax") == 0x1122334455667788);
  REQUIRE(value_of(registers, "rip") == 0x7fff00001000);
  REQUIRE(value_of(registers, "eflags") == 0x246);
  REQUIRE(value_of(registers, "cs") == 8);
  REQUIRE(value_of(registers, "orig_rax") == 232);
  REQUIRE(value_of(registers, "fs_base") == 0x7f0000000740);
  REQUIRE(value_of(registers, "fctrl") == 0x37f);
  REQUIRE(value_of(registers, "mxcsr") == 0x1f80);
  REQUIRE(value_of(registers, "xmm1") == 0xab);
  REQUIRE(value_of(registers, "ymm1h") == 0xcd);
}

TEST_CASE("a component in its initial state reads as zero, and is there once it is set") {
  Registers registers = sample();
  registers.extended[512] = 3;
  REQUIRE(value_of(registers, "ymm1h") == 0);
  std::vector<uint8_t> value(16);
  value[3] = 9;
  REQUIRE(set_gdb_register(&registers, Avx::kYes, number_of("ymm2h"), value));
  REQUIRE(registers.extended[512] == 7);
  REQUIRE(value_of(registers, "ymm2h") == 9u << 24);
  REQUIRE(value_of(registers, "ymm1h") == 0);
}

TEST_CASE("the tag word is FXSAVE's byte, spelled out") {
  Registers registers = sample();
  REQUIRE(value_of(registers, "ftag") == 0xffff);
  // st0 = 1.0 in physical register 7 (top = 7), st1 = 0.0 in physical 0, st2 = infinity in 1.
  registers.extended[3] = 7 << 3;
  registers.extended[4] = 0x83;
  registers.extended[32 + 7] = 0x80;
  registers.extended[32 + 8] = 0xff;
  registers.extended[32 + 9] = 0x3f;
  registers.extended[64 + 7] = 0x80;
  registers.extended[64 + 8] = 0xff;
  registers.extended[64 + 9] = 0x7f;
  REQUIRE(value_of(registers, "ftag") == 0x3ff9);
  const std::vector<uint8_t> tag = {0xf9, 0x3f, 0, 0};
  registers.extended[4] = 0;
  REQUIRE(set_gdb_register(&registers, Avx::kYes, number_of("ftag"), tag));
  REQUIRE(registers.extended[4] == 0x83);
}

TEST_CASE("all registers written back leave everything as it was") {
  const Registers before = sample();
  Registers after = before;
  const std::string text = gdb_all_registers(before, Avx::kYes);
  REQUIRE(set_gdb_all_registers(&after, Avx::kYes, text));
  REQUIRE(std::memcmp(&before.general, &after.general, sizeof before.general) == 0);
  REQUIRE(before.extended == after.extended);
  REQUIRE_FALSE(set_gdb_all_registers(&after, Avx::kYes, text + "00"));
  REQUIRE_FALSE(set_gdb_all_registers(&after, Avx::kYes, text.substr(2)));
  REQUIRE_FALSE(set_gdb_all_registers(&after, Avx::kYes, "zz" + text.substr(2)));
}

TEST_CASE("orig_rax takes a thread out of its system call and puts it back") {
  Registers registers = sample();
  const auto set = [&](int64_t number) {
    std::vector<uint8_t> value(sizeof number);
    std::memcpy(value.data(), &number, sizeof number);
    REQUIRE(set_gdb_register(&registers, Avx::kYes, number_of("orig_rax"), value));
  };
  set(-1);
  CHECK(registers.general.vector == dbos::kRestoredVector);
  CHECK(registers.system_call() == -1);
  set(7);
  CHECK(registers.general.vector == dbos::kSystemCallVector);
  CHECK(registers.system_call() == 7);
  registers.general.vector = dbos::kBreakpointVector;
  set(-1);
  CHECK(registers.general.vector == dbos::kBreakpointVector);
}

TEST_CASE("what is not known shows as such") {
  Registers registers = sample();
  registers.has_special = false;
  REQUIRE(gdb_register_value(registers, Avx::kYes, number_of("xmm0")).empty());
  REQUIRE(gdb_all_registers(registers, Avx::kYes).find("xxxx") != std::string::npos);
  REQUIRE(value_of(registers, "rax") == 0x1122334455667788);
  const std::vector<uint8_t> value(16);
  REQUIRE_FALSE(set_gdb_register(&registers, Avx::kYes, number_of("xmm0"), value));
}

TEST_CASE("signals have gdb's numbers and come back as Linux's") {
  REQUIRE(dbos::vmm::gdb_signal(SIGINT) == 2);
  REQUIRE(dbos::vmm::gdb_signal(SIGBUS) == 10);
  REQUIRE(dbos::vmm::gdb_signal(SIGCHLD) == 20);
  REQUIRE(dbos::vmm::gdb_signal(SIGUSR1) == 30);
  REQUIRE(dbos::vmm::gdb_signal(34) == 46);
  for (int signal = 1; signal <= 64; ++signal) {
    if (signal == SIGSTKFLT) continue;  // gdb has none
    REQUIRE(dbos::vmm::linux_signal(dbos::vmm::gdb_signal(signal)) == signal);
  }
  REQUIRE(dbos::vmm::gdb_signal(65) == 0);
  REQUIRE(dbos::vmm::linux_signal(999) == 0);
}
