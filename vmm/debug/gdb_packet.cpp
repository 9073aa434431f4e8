#include "vmm/debug/gdb_packet.h"

namespace dbos::vmm {
namespace {

constexpr char kInterruptByte = 3;
constexpr char kEscape = '}';
constexpr char kEscapeBit = 0x20;
constexpr size_t kChecksumDigits = 2;

std::optional<unsigned> digit_of(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
  return std::nullopt;
}

char digit(unsigned value) {
  return "0123456789abcdef"[value & 15];
}

uint8_t checksum(std::string_view text) {
  unsigned sum = 0;
  for (const char c : text) sum += static_cast<uint8_t>(c);
  return static_cast<uint8_t>(sum);
}

std::string unescape(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_escaped = text[i] == kEscape && i + 1 < text.size();
    result += is_escaped ? static_cast<char>(text[++i] ^ kEscapeBit) : text[i];
  }
  return result;
}

}  // namespace

void GdbPacketReader::add(std::string_view bytes) {
  buffer_ += bytes;
}

std::optional<GdbInput> GdbPacketReader::next() {
  while (!buffer_.empty()) {
    const char first = buffer_.front();
    if (first == '$') {
      const size_t end = buffer_.find('#');
      if (end != std::string::npos) return finish(end);
      if (buffer_.size() <= 2 * kGdbPacketMax) return std::nullopt;
      buffer_.clear();
      return GdbInput{GdbInput::Kind::kDamaged, {}};
    }
    buffer_.erase(0, 1);
    if (first == '+') return GdbInput{GdbInput::Kind::kAccepted, {}};
    if (first == '-') return GdbInput{GdbInput::Kind::kRejected, {}};
    if (first == kInterruptByte) return GdbInput{GdbInput::Kind::kInterrupt, {}};
  }
  return std::nullopt;
}

// A packet whose '#' is at `end`.
std::optional<GdbInput> GdbPacketReader::finish(size_t end) {
  if (buffer_.size() < end + 1 + kChecksumDigits) return std::nullopt;
  const std::string_view whole(buffer_);
  const std::string_view text = whole.substr(1, end - 1);
  const auto sent = from_hex(whole.substr(end + 1, kChecksumDigits));
  const bool is_sound =
      sent && static_cast<uint8_t>(sent->front()) == checksum(text) && text.size() <= kGdbPacketMax;
  GdbInput input{is_sound ? GdbInput::Kind::kPacket : GdbInput::Kind::kDamaged, {}};
  if (is_sound) input.text = unescape(text);
  buffer_.erase(0, end + 1 + kChecksumDigits);
  return input;
}

std::string make_gdb_packet(std::string_view text) {
  std::string body;
  for (const char c : text) {
    const bool has_meaning = c == '$' || c == '#' || c == kEscape || c == '*';
    if (has_meaning) body += kEscape;
    body += has_meaning ? static_cast<char>(c ^ kEscapeBit) : c;
  }
  const unsigned sum = checksum(body);
  return "$" + body + "#" + digit(sum >> 4) + digit(sum);
}

std::string to_hex(std::span<const uint8_t> bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    text += digit(byte >> 4u);
    text += digit(byte);
  }
  return text;
}

std::optional<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    const auto high = digit_of(text[i]);
    const auto low = digit_of(text[i + 1]);
    if (!high || !low) return std::nullopt;
    bytes += static_cast<char>(*high << 4 | *low);
  }
  return bytes;
}

std::optional<uint64_t> take_number(std::string_view* text) {
  uint64_t value = 0;
  size_t used = 0;
  for (; used < text->size(); ++used) {
    const auto next = digit_of((*text)[used]);
    if (!next) break;
    if (value >> 60 != 0) return std::nullopt;
    value = value << 4 | *next;
  }
  if (used == 0) return std::nullopt;
  text->remove_prefix(used);
  return value;
}

bool take_prefix(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

std::optional<int64_t> take_thread(std::string_view* text) {
  std::string_view rest = *text;
  if (take_prefix(&rest, "-1")) {
    *text = rest;
    return -1;
  }
  const auto number = take_number(&rest);
  if (!number || *number > INT32_MAX) return std::nullopt;
  *text = rest;
  return static_cast<int64_t>(*number);
}

}  // namespace dbos::vmm
