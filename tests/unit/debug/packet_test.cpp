#include <catch2/catch.hpp>

#include "vmm/debug/gdb_packet.h"

using dbos::vmm::GdbInput;
using dbos::vmm::GdbPacketReader;
using dbos::vmm::make_gdb_packet;

namespace {

std::optional<GdbInput> only(std::string_view bytes) {
  GdbPacketReader reader;
  reader.add(bytes);
  return reader.next();
}

}  // namespace

TEST_CASE("a packet is what was made of the text, whatever its bytes") {
  std::string text;
  for (int i = 0; i < 256; ++i) text += static_cast<char>(i);
  GdbPacketReader reader;
  // One byte at a time: a stream has no boundaries.
  const std::string packet = make_gdb_packet(text);
  for (size_t i = 0; i + 1 < packet.size(); ++i) {
    reader.add(packet.substr(i, 1));
    REQUIRE_FALSE(reader.next());
  }
  reader.add(packet.substr(packet.size() - 1));
  const auto input = reader.next();
  REQUIRE(input);
  REQUIRE(input->kind == GdbInput::Kind::kPacket);
  REQUIRE(input->text == text);
}

TEST_CASE("checksums are as gdb's manual counts them") {
  REQUIRE(make_gdb_packet("OK") == "$OK#9a");
  REQUIRE(make_gdb_packet("") == "$#00");
  REQUIRE(only("$OK#9a")->text == "OK");
  REQUIRE(only("$OK#9A")->text == "OK");
  REQUIRE(only("$OK#9b")->kind == GdbInput::Kind::kDamaged);
  REQUIRE(only("$OK#zz")->kind == GdbInput::Kind::kDamaged);
}

TEST_CASE("acknowledgements and Ctrl-C lie between packets; other bytes are skipped") {
  GdbPacketReader reader;
  reader.add("+x$g#67-\003");
  REQUIRE(reader.next()->kind == GdbInput::Kind::kAccepted);
  REQUIRE(reader.next()->text == "g");
  REQUIRE(reader.next()->kind == GdbInput::Kind::kRejected);
  REQUIRE(reader.next()->kind == GdbInput::Kind::kInterrupt);
  REQUIRE_FALSE(reader.next());
}

TEST_CASE("what never ends is dropped") {
  GdbPacketReader reader;
  reader.add("$" + std::string(3 * dbos::vmm::kGdbPacketMax, 'a'));
  REQUIRE(reader.next()->kind == GdbInput::Kind::kDamaged);
  reader.add("$g#67");
  REQUIRE(reader.next()->text == "g");
}

TEST_CASE("numbers and threads are taken off the front") {
  std::string_view text = "7fff1234,8";
  REQUIRE(dbos::vmm::take_number(&text) == 0x7fff1234);
  REQUIRE(text == ",8");
  text = "ffffffffffffffff";
  REQUIRE(dbos::vmm::take_number(&text) == UINT64_MAX);
  text = "10000000000000000";
  REQUIRE_FALSE(dbos::vmm::take_number(&text));
  REQUIRE(text == "10000000000000000");
  text = "-1;";
  REQUIRE(dbos::vmm::take_thread(&text) == -1);
  REQUIRE(text == ";");
  text = "";
  REQUIRE_FALSE(dbos::vmm::take_thread(&text));
  REQUIRE_FALSE(dbos::vmm::from_hex("123"));
  REQUIRE(dbos::vmm::from_hex("00fF") == std::string("\0\xff", 2));
}
