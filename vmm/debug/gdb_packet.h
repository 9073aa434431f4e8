// The framing of gdb's remote protocol (gdb's manual, "Remote Protocol", Overview): $TEXT#CHECKSUM,
// acknowledgements, and the byte that Ctrl-C sends. Knows nothing of what the packets say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace dbos::vmm {

// What gdb is told as PacketSize. A longer packet is dropped, and answered as a damaged one.
inline constexpr size_t kGdbPacketMax = 16384;

struct GdbInput {
  enum class Kind {
    kPacket,     // `text`: unescaped
    kDamaged,    // a wrong checksum, or too long
    kInterrupt,  // Ctrl-C
    kAccepted,   // '+'
    kRejected,   // '-': the last packet is to be sent again
  };
  Kind kind;
  std::string text;
};

// Cuts a stream of bytes into inputs. Bytes between them are skipped.
class GdbPacketReader {
 public:
  void add(std::string_view bytes);
  // The next complete input; empty: more bytes are needed.
  std::optional<GdbInput> next();

 private:
  std::optional<GdbInput> finish(size_t end);

  std::string buffer_;
};

// $TEXT#CHECKSUM, with the bytes escaped that have a meaning of their own.
std::string make_gdb_packet(std::string_view text);

// ---- The texts' parts ----

std::string to_hex(std::span<const uint8_t> bytes);
// Two digits a byte; empty: something else is there.
std::optional<std::string> from_hex(std::string_view text);

// Takes a hexadecimal number off the front; empty (and nothing taken): there is none, or it is too
// large.
std::optional<uint64_t> take_number(std::string_view* text);
// Takes `prefix` off the front, if it is there.
bool take_prefix(std::string_view* text, std::string_view prefix);

// A thread as gdb names it: -1 all, 0 any.
std::optional<int64_t> take_thread(std::string_view* text);

}  // namespace dbos::vmm
