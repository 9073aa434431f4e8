// Feeds damaged packets to the gdb server's session. It must answer each or drop it, keep to its
// packet size, and never resume a program that it was not told to.
//
// With libFuzzer: clang++ -fsanitize=fuzzer,address,undefined -DDBOS_LIBFUZZER.
// Without: gdb_fuzz [SECONDS [SEED]] mutates sound packets at random, with any compiler.
#include <iterator>
#include <string>

#include "tests/fuzz/rounds.h"
#include "tests/unit/debug/fake_program.h"
#include "vmm/debug/gdb_session.h"

namespace {

using dbos::test::accepted;
using dbos::test::Random;
using dbos::test::require;
using dbos::vmm::GdbPacketReader;
using dbos::vmm::GdbSession;
using dbos::vmm::make_gdb_packet;

// The answers are a stream of sound packets. Counts those that are no refusals.
void check_output(const std::string& output) {
  GdbPacketReader reader;
  reader.add(output);
  while (const auto input = reader.next()) {
    require(input->kind != dbos::vmm::GdbInput::Kind::kDamaged, "a damaged answer");
    require(input->text.size() <= dbos::vmm::kGdbPacketMax, "an answer that is too long");
    const bool is_refusal = input->text.empty() || input->text.front() == 'E';
    if (input->kind == dbos::vmm::GdbInput::Kind::kPacket && !is_refusal) ++accepted;
  }
}

void run_one(const uint8_t* data, size_t size) {
  fake::reset();
  GdbSession session;
  // Not 'k', which kills: the harness with it.
  std::string bytes(reinterpret_cast<const char*>(data), size);
  for (char& c : bytes) {
    if (c == 'k' || c == 'K') c = 'g';
  }
  session.receive(bytes);
  check_output(session.take_output());
  session.handle_events();
  fake::program().events = {{0, dbos::vmm::StopCause::kBreakpoint, 0, 0}};
  session.handle_events();
  check_output(session.take_output());
  require(fake::program().is_stopped || fake::program().resumes > 0, "resumed by itself");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run_one(data, size);
  return 0;
}

#ifndef DBOS_LIBFUZZER
namespace {

constexpr const char* kSeeds[] = {"qSupported:multiprocess+;swbreak+;hwbreak+",
                                  "QStartNoAckMode",
                                  "?",
                                  "g",
                                  "p10",
                                  "Hg64",
                                  "P10=0000500000000000",
                                  "m1000,40",
                                  "M1000,2:aabb",
                                  "X1000,2:ab",
                                  "Z0,1000,1",
                                  "z0,1000,1",
                                  "Z2,1008,8",
                                  "vCont?",
                                  "vCont;s:64;c",
                                  "vCont;C1e:65;t:64",
                                  "qfThreadInfo",
                                  "T64",
                                  "D",
                                  "qXfer:features:read:target.xml:0,1000",
                                  "qXfer:auxv:read::0,1000",
                                  "c",
                                  "S05",
                                  "qC"};

std::string random_packet(Random& random) {
  std::string text = kSeeds[random() % std::size(kSeeds)];
  for (uint64_t changes = random() % 4; changes > 0; --changes) {
    const size_t at = random() % (text.size() + 1);
    switch (random() % 4) {
      case 0:
        text.insert(at, 1, static_cast<char>(random()));
        break;
      case 1:
        if (at < text.size()) text.erase(at, 1 + random() % 4);
        break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(random());
        break;
      default:
        text.insert(at, "ffffffffffffffffff", random() % 19);
        break;
    }
  }
  std::string packet = make_gdb_packet(text);
  if (random() % 8 == 0) packet[random() % packet.size()] = static_cast<char>(random());
  if (random() % 16 == 0) packet.resize(random() % packet.size());
  return packet;
}

std::string random_packets(Random& random) {
  std::string packets;
  for (uint64_t count = 1 + random() % 6; count > 0; --count) packets += random_packet(random);
  return packets;
}

}  // namespace

int main(int argc, char** argv) {
  return dbos::test::fuzz_main(argc, argv, random_packets);
}
#endif
