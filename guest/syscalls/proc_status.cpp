#include "guest/syscalls/proc_status.h"

namespace dbos {

namespace {

// Fields of /proc/<pid>/stat, counted as proc(5) does.
enum StatField : u32 {
  kMinorFaults = 10,
  kThreads = 20,
  kVirtualSize = 23,
  kResidentPages = 24,
  kCodeStart = 26,
  kCodeEnd = 27,
  kStackStart = 28,
  kDataStart = 45,
  kDataEnd = 46,
  kBreakStart = 47,
  kArgumentsStart = 48,
  kArgumentsEnd = 49,
  kEnvironmentStart = 50,
  kEnvironmentEnd = 51,
};

bool begins_with(const char* line, u64 size, const char* key) {
  u64 i = 0;
  while (key[i] != 0 && i < size && line[i] == key[i]) ++i;
  return key[i] == 0;
}

u64 find(const char* text, u64 from, u64 size, char wanted) {
  while (from < size && text[from] != wanted) ++from;
  return from;
}

// visit(line, length) for each line of the text, without its end.
template <typename Visit>
void for_each_line(const char* text, u64 size, Visit visit) {
  for (u64 begin = 0; begin < size;) {
    const u64 end = find(text, begin, size, '\n');
    visit(text + begin, end - begin);
    begin = end + 1;
  }
}

u64 number_in(const char* line, u64 size) {
  u64 at = 0;
  while (at < size && (line[at] < '0' || line[at] > '9')) ++at;
  u64 value = 0;
  for (; at < size && line[at] >= '0' && line[at] <= '9'; ++at) {
    value = value * 10 + static_cast<u64>(line[at] - '0');
  }
  return value;
}

ProcText& put_limit(ProcText& out, u64 limit) {
  return limit == kUnlimited ? out.text("unlimited") : out.decimal(limit);
}

struct StatusValue {
  const char* key;  // with the colon
  u64 bytes;
};

}  // namespace

void format_status(ProcText& out, const char* host, u64 size, const SpaceStatistics& space,
                   const MemorySums& sums, const ProcessFacts& facts) {
  const u64 resident = space.resident_anonymous_bytes + space.resident_window_bytes;
  const u64 code = align_up(facts.code_size, kPageSize);
  const u64 library = sums.executable > code ? sums.executable - code : 0;
  const StatusValue values[] = {
      {"VmPeak:", space.virtual_bytes_peak},
      {"VmSize:", space.virtual_bytes},
      {"VmLck:", space.locked_bytes},
      {"VmPin:", 0},
      {"VmHWM:", space.resident_bytes_peak},
      {"VmRSS:", resident},
      {"RssAnon:", space.resident_anonymous_bytes},
      {"RssFile:", space.resident_window_bytes},
      {"RssShmem:", 0},
      {"VmData:", sums.data},
      {"VmStk:", sums.stack},
      {"VmExe:", code},
      {"VmLib:", library},
      {"VmPTE:", space.table_bytes},
      {"VmSwap:", 0},
  };
  for_each_line(host, size, [&](const char* line, u64 length) {
    const StatusValue* replacement = nullptr;
    for (const StatusValue& value : values) {
      if (begins_with(line, length, value.key)) replacement = &value;
    }
    if (replacement != nullptr) {
      out.text(replacement->key).kib("\t", replacement->bytes).text(" kB\n");
    } else if (begins_with(line, length, "Threads:")) {
      out.text("Threads:\t").decimal(facts.thread_count).put('\n');
    } else if (facts.large_pages == LargePages::kNo && begins_with(line, length, "THP_enabled:")) {
      out.text("THP_enabled:\t0\n");
    } else if (facts.shows_blocked && begins_with(line, length, "SigBlk:")) {
      out.text("SigBlk:\t").hexadecimal(facts.blocked_signals, 16).put('\n');
    } else if (begins_with(line, length, "SigCgt:")) {
      out.text("SigCgt:\t").hexadecimal(facts.caught_signals, 16).put('\n');
    } else {
      out.bytes(line, length).put('\n');
    }
  });
}

void format_stat(ProcText& out, const char* host, u64 size, const SpaceStatistics& space,
                 const ProgramLayout& layout, const ProcessFacts& facts) {
  struct Value {
    StatField field;
    u64 value;
  };
  const Value values[] = {
      {kMinorFaults, space.faults},
      {kThreads, facts.thread_count},
      {kVirtualSize, space.virtual_bytes},
      {kResidentPages, (space.resident_anonymous_bytes + space.resident_window_bytes) / kPageSize},
      {kCodeStart, layout.code_start},
      {kCodeEnd, layout.code_end},
      {kStackStart, layout.stack_start},
      {kDataStart, layout.data_start},
      {kDataEnd, layout.data_end},
      {kBreakStart, layout.brk_start},
      {kArgumentsStart, layout.arguments_start},
      {kArgumentsEnd, layout.arguments_end},
      {kEnvironmentStart, layout.environment_start},
      {kEnvironmentEnd, layout.environment_end},
  };
  // The name, field 2, may hold anything: the fields are counted from behind its last parenthesis.
  u64 position = size;
  while (position > 0 && host[position - 1] != ')') --position;
  out.bytes(host, position);
  for (u32 field = 3; position < size && host[position] == ' '; ++field) {
    const u64 begin = position + 1;
    u64 end = begin;
    while (end < size && host[end] != ' ' && host[end] != '\n') ++end;
    out.put(' ');
    const Value* replacement = nullptr;
    for (const Value& value : values) {
      if (value.field == field) replacement = &value;
    }
    if (replacement != nullptr) {
      out.decimal(replacement->value);
    } else {
      out.bytes(host + begin, end - begin);
    }
    position = end;
  }
  out.put('\n');
}

void format_limits(ProcText& out, const char* host, u64 size, const MemoryLimits& limits) {
  struct Value {
    const char* name;
    const char* unit;
    const ResourceLimit& limit;
  };
  const Value values[] = {
      {"Max address space", "bytes", limits.address_space},
      {"Max data size", "bytes", limits.data},
      {"Max stack size", "bytes", limits.stack},
  };
  for_each_line(host, size, [&](const char* line, u64 length) {
    const Value* replacement = nullptr;
    for (const Value& value : values) {
      if (begins_with(line, length, value.name)) replacement = &value;
    }
    if (replacement == nullptr) {
      out.bytes(line, length);
    } else {
      // As Linux's "%-25s %-20s %-20s %-10s".
      out.text(replacement->name).pad_to(25);
      put_limit(out, replacement->limit.soft).pad_to(46);
      put_limit(out, replacement->limit.hard).pad_to(67);
      out.text(replacement->unit).pad_to(77);
    }
    out.put('\n');
  });
}

void format_memory_information(ProcText& out, const char* host, u64 size,
                               const MemoryBounds& bounds) {
  struct Value {
    const char* label;
    u64 bound;
  };
  const Value values[] = {
      {"MemTotal:       ", bounds.total},
      {"MemFree:        ", bounds.free},
      {"MemAvailable:   ", bounds.free},
  };
  for_each_line(host, size, [&](const char* line, u64 length) {
    const Value* bounded = nullptr;
    for (const Value& value : values) {
      const bool is_it = begins_with(line, length, value.label);
      if (is_it && number_in(line, length) > value.bound / kKiB) bounded = &value;
    }
    if (bounded == nullptr) {
      out.bytes(line, length).put('\n');
    } else {
      out.kib(bounded->label, bounded->bound).text(" kB\n");
    }
  });
}

}  // namespace dbos
