#include "tools/dbos-dbg/examine.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <vector>

#include "vmm/debug/disassemble.h"

namespace dbos::dbg {
namespace {

constexpr uint64_t kCountMax = 65536;
constexpr size_t kStringMax = 4096;
constexpr size_t kInstructionMax = 15;  // SDM volume 2, 2.3.11
constexpr uint64_t kBefore = 512;       // as far back as a function's start is looked for
constexpr size_t kAround = 8;           // instructions
constexpr size_t kPerLine = 16;         // bytes

[[noreturn]] void complain_of_memory(uint64_t address) {
  throw Failure(fmt::format("there is no memory at {:#x}", address));
}

std::vector<uint8_t> bytes_at(Target& target, uint64_t address, uint64_t size) {
  std::vector<uint8_t> bytes(size);
  bytes.resize(target.read(address, bytes.data(), size));
  if (bytes.empty()) complain_of_memory(address);
  return bytes;
}

uint64_t unit_value(const uint8_t* bytes, uint64_t size) {
  uint64_t value = 0;
  std::memcpy(&value, bytes, size);
  return value;
}

int64_t signed_value(uint64_t value, uint64_t size) {
  const auto unused = static_cast<unsigned>(64 - 8 * size);
  return static_cast<int64_t>(value << unused) >> unused;
}

std::string string_text(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (std::isprint(static_cast<unsigned char>(c)) != 0) {
      result += c;
    } else {
      result += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    }
  }
  return result + "\"";
}

std::string unit_text(uint64_t value, const ExamineFormat& format) {
  switch (format.format) {
    case 'd':
      return fmt::format("{}", signed_value(value, format.size));
    case 'u':
      return fmt::format("{}", value);
    case 'c':
      return fmt::format("{} '{}'", value,
                         std::isprint(static_cast<int>(value & 0xff)) != 0
                             ? std::string(1, static_cast<char>(value))
                             : fmt::format("\\{:03o}", value & 0xff));
    default:
      return fmt::format("{:#0{}x}", value, 2 + 2 * format.size);
  }
}

std::string line_begin(Target& target, uint64_t address) {
  const std::string place = place_text(target.describe(address));
  return fmt::format("{:#x}{}:", address, place.empty() ? "" : " " + place);
}

Answer examine_units(Target& target, uint64_t address, const ExamineFormat& format) {
  const std::vector<uint8_t> bytes = bytes_at(target, address, format.count * format.size);
  const uint64_t count = bytes.size() / format.size;
  const uint64_t per_line = format.format == 'c' ? 8 : kPerLine / format.size;
  Answer answer{{{"address", address}, {"size", format.size}, {"values", Json::array()}}, {}};
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t value = unit_value(&bytes[i * format.size], format.size);
    answer.json["values"].push_back(value);
    if (i % per_line == 0) {
      answer.text += (i == 0 ? "" : "\n") + line_begin(target, address + i * format.size);
    }
    answer.text += "\t" + unit_text(value, format);
  }
  answer.text += "\n";
  if (count < format.count) {
    if (count == 0) complain_of_memory(address);
    answer.text += fmt::format("there is no memory at {:#x}\n", address + count * format.size);
  }
  return answer;
}

Answer examine_strings(Target& target, uint64_t address, uint64_t count) {
  Answer answer{{{"address", address}, {"strings", Json::array()}}, {}};
  for (uint64_t i = 0; i < count; ++i) {
    std::string text;
    char c = 0;
    while (text.size() < kStringMax && target.read(address + text.size(), &c, 1) == 1 && c != 0) {
      text += c;
    }
    if (text.empty() && target.read(address, &c, 1) == 0) complain_of_memory(address);
    answer.json["strings"].push_back(text);
    answer.text += fmt::format("{}\t{}\n", line_begin(target, address), string_text(text));
    address += text.size() + 1;
  }
  return answer;
}

Answer instructions_answer(Target& target, const std::vector<vmm::Instruction>& list) {
  const uint64_t current = target.register_value("rip").value_or(0);
  Answer answer{{{"current", current}, {"instructions", Json::array()}}, {}};
  for (const vmm::Instruction& one : list) {
    const CallFrame frame = target.describe(one.address);
    Json json = {{"address", one.address}, {"size", one.size}, {"text", one.text}};
    if (!frame.function.empty()) {
      json["function"] = frame.function;
      json["offset"] = frame.offset;
    }
    answer.json["instructions"].push_back(std::move(json));
    answer.text += fmt::format("{} {:#018x} {:<28}  {}\n", one.address == current ? "=>" : "  ",
                               one.address, place_text(frame), one.text);
  }
  return answer;
}

}  // namespace

ExamineFormat parse_examine_format(const std::string& text) {
  ExamineFormat format;
  size_t at = 1;  // behind the '/'
  uint64_t count = 0;
  const size_t digits = at;
  for (; at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0; ++at) {
    count = std::min(kCountMax + 1, count * 10 + static_cast<uint64_t>(text[at] - '0'));
  }
  if (at > digits) format.count = count;
  bool has_size = false;
  for (; at < text.size(); ++at) {
    constexpr const char* kSizes = "bhwg";
    const char* const size = std::strchr(kSizes, text[at]);
    if (size != nullptr) {
      format.size = uint64_t{1} << (size - kSizes);
      has_size = true;
    } else if (std::strchr("xducsi", text[at]) != nullptr) {
      format.format = text[at];
    } else {
      throw Failure(fmt::format("'{}': a format is a count, one of xducsi and one of bhwg", text));
    }
  }
  if (format.count == 0 || format.count > kCountMax) {
    throw Failure(fmt::format("'{}': a count is from 1 to {}", text, kCountMax));
  }
  if (format.format == 'c' && !has_size) format.size = 1;
  return format;
}

Answer examine(Target& target, uint64_t address, const ExamineFormat& format) {
  if (format.format == 's') return examine_strings(target, address, format.count);
  if (format.format == 'i') return disassembly(target, address, format.count);
  return examine_units(target, address, format);
}

void need_disassembler() {
  if (vmm::load_disassembler()) return;
  throw Failure("instructions need the library capstone (apt-get install libcapstone4)");
}

Answer disassembly(Target& target, uint64_t address, uint64_t count) {
  need_disassembler();
  if (count == 0 || count > kCountMax) {
    throw Failure(fmt::format("a count is from 1 to {}", kCountMax));
  }
  const std::vector<uint8_t> code = bytes_at(target, address, count * kInstructionMax);
  return instructions_answer(target, vmm::disassemble(code, address, count));
}

Answer disassembly_here(Target& target) {
  need_disassembler();
  const uint64_t here = target.register_value("rip").value_or(0);
  const uint64_t offset = target.describe(here).offset;
  // Only from a function's start on is it known where instructions begin.
  const uint64_t begin = offset <= kBefore ? here - offset : here;
  const size_t size = here - begin + kAround * kInstructionMax;
  auto list = vmm::disassemble(bytes_at(target, begin, size), begin, size);
  const auto current =
      std::find_if(list.begin(), list.end(), [&](const auto& one) { return one.address == here; });
  if (current == list.end()) return disassembly(target, here, kAround);
  const auto before = std::min<ptrdiff_t>(current - list.begin(), kAround);
  const auto after = std::min<ptrdiff_t>(list.end() - current, kAround);
  return instructions_answer(target, {current - before, current + after});
}

std::string place_text(const CallFrame& frame) {
  if (frame.function.empty()) return {};
  const std::string name = vmm::without_arguments(frame.function);
  return frame.offset == 0 ? "<" + name + ">" : fmt::format("<{}+{}>", name, frame.offset);
}

Json frame_json(const CallFrame& frame) {
  Json json = {{"address", frame.address}};
  if (!frame.function.empty()) {
    json["function"] = frame.function;
    json["offset"] = frame.offset;
  }
  if (!frame.source.empty()) json["source"] = frame.source;
  if (!frame.module.empty()) json["module"] = frame.module;
  return json;
}

}  // namespace dbos::dbg
