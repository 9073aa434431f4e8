// `x` and `disas`: the program's memory as gdb prints it.
#pragma once

#include <cstdint>
#include <string>

#include "tools/dbos-dbg/target.h"

namespace dbos::dbg {

// What a command answers: for programs, and for people.
struct Answer {
  Json json;
  std::string text;
};

// "/8xg": how many, the format and the size of each.
struct ExamineFormat {
  uint64_t count = 1;
  char format =
      'x';  // x hexadecimal, d signed, u unsigned, c characters, s strings, i instructions
  uint64_t size = 4;  // bytes: b 1, h 2, w 4, g 8
};
// Throws Failure.
ExamineFormat parse_examine_format(const std::string& text);

Answer examine(Target& target, uint64_t address, const ExamineFormat& format);

// `count` instructions from `address` on. "=>" marks the one at which the thread stands.
Answer disassembly(Target& target, uint64_t address, uint64_t count);
// Those around the place where the thread stands.
Answer disassembly_here(Target& target);

// "<setCommand+4>"; empty: unknown.
std::string place_text(const CallFrame& frame);
Json frame_json(const CallFrame& frame);

}  // namespace dbos::dbg
