#include "tools/dbos-dbg/show.h"

#include <fmt/core.h>

#include "tools/dbos-dbg/table.h"

namespace dbos::dbg {
namespace {

std::string decimal(const Json& number) {
  return fmt::format("{}", number.get<int64_t>());
}

std::string pages_text(const Json& frames, const Json& count) {
  return bytes_text(frames["frame_bytes"].get<uint64_t>() * count.get<uint64_t>());
}

const char* what_a_level_maps(int level) {
  constexpr const char* kSizes[] = {"", "4 KiB", "2 MiB", "1 GiB", "512 GiB"};
  return level >= 1 && level <= 4 ? kSizes[level] : "?";
}

std::string flags_text(const Json& flags) {
  std::string text;
  for (const Json& flag : flags) text += (text.empty() ? "" : " ") + flag.get<std::string>();
  return text;
}

const char* yes_or_no(const Json& value) {
  return value.get<bool>() ? "yes" : "no";
}

}  // namespace

std::string processes_text(const Json& processes) {
  Table table({{"PROCESS", Align::kRight},
               {"PARENT", Align::kRight},
               {"THREAD", Align::kRight},
               {"VCPU", Align::kRight},
               {"SPACE", Align::kLeft},
               {"STATE", Align::kLeft},
               {"NAME", Align::kLeft}});
  for (const Json& process : processes) {
    for (const Json& thread : process["threads"]) {
      table.add({decimal(process["process"]), decimal(process["parent"]), decimal(thread["thread"]),
                 decimal(thread["vcpu"]), hex_text(process["space"].get<uint64_t>()),
                 thread["state"], thread["name"].get<std::string>()});
    }
  }
  return table.text();
}

std::string maps_text(const Json& maps) {
  std::string text;
  for (const Json& mapping : maps["mappings"]) {
    text += fmt::format("{:012x}-{:012x} {} {:08x} {}\n", mapping["begin"].get<uint64_t>(),
                        mapping["end"].get<uint64_t>(), mapping["protection"].get<std::string>(),
                        mapping["offset"].get<uint64_t>(), mapping["name"].get<std::string>());
  }
  return text;
}

std::string walk_text(const Json& walk) {
  std::string text = fmt::format("address {:#x} in address space {:#x}\n",
                                 walk["address"].get<uint64_t>(), walk["space"].get<uint64_t>());
  Table table({{"LEVEL", Align::kRight},
               {"ENTRY OF", Align::kLeft},
               {"AT", Align::kLeft},
               {"ENTRY", Align::kLeft},
               {"LEADS TO", Align::kLeft},
               {"FLAGS", Align::kLeft}});
  for (const Json& step : walk["steps"]) {
    table.add({decimal(step["level"]), what_a_level_maps(step["level"].get<int>()),
               hex_text(step["entry_address"].get<uint64_t>()),
               fmt::format("{:#018x}", step["entry"].get<uint64_t>()),
               hex_text(step["target"].get<uint64_t>()), flags_text(step["flags"])});
  }
  text += table.text();
  if (!walk["mapped"].get<bool>()) {
    return text + "not mapped: an access faults, and the guest kernel decides\n";
  }
  return text +
         fmt::format("page of {}, byte at guest-physical {:#x}; writable: {}, executable: {}\n",
                     bytes_text(walk["page_bytes"].get<uint64_t>()),
                     walk["physical"].get<uint64_t>(), yes_or_no(walk["writable"]),
                     yes_or_no(walk["executable"]));
}

std::string frames_text(const Json& frames) {
  Table table({{"FRAMES", Align::kLeft}, {"COUNT", Align::kRight}, {"MEMORY", Align::kRight}});
  const auto add = [&](const char* title, const char* key) {
    table.add({title, decimal(frames[key]), pages_text(frames, frames[key])});
  };
  add("limit (--memory)", "limit");
  add("in the arena so far", "total");
  add("  free", "free");
  add("  pages of the program", "pages");
  add("    kept for snapshots only", "retired_pages");
  add("  page tables", "tables");
  add("    kept for snapshots only", "retired_tables");
  add("  the guest kernel's own", "kernel");
  return table.text();
}

std::string snapshots_text(const Json& snapshots) {
  Table table({{"SPACE", Align::kLeft},
               {"PROCESS", Align::kRight},
               {"PARENT", Align::kLeft},
               {"EPOCH", Align::kRight},
               {"AGE", Align::kRight},
               {"STATE", Align::kLeft},
               {"PAGES", Align::kRight},
               {"TABLES", Align::kRight},
               {"HELD PAGES", Align::kRight},
               {"HELD TABLES", Align::kRight},
               {"COPIED", Align::kRight},
               {"BY PARENT", Align::kRight}});
  for (const Json& snapshot : snapshots["snapshots"]) {
    const bool has_parent = snapshot.contains("parent");
    table.add({hex_text(snapshot["space"].get<uint64_t>()),
               snapshot.contains("process") ? decimal(snapshot["process"]) : "-",
               has_parent ? hex_text(snapshot["parent"].get<uint64_t>()) : "-",
               decimal(snapshot["epoch"]), duration_text(snapshot["age_ns"].get<uint64_t>()),
               snapshot["state"], decimal(snapshot["pages"]), decimal(snapshot["tables"]),
               decimal(snapshot["retired_pages"]), decimal(snapshot["retired_tables"]),
               decimal(snapshot["copied_pages"]),
               has_parent ? decimal(snapshot["parent_copied_pages"]) : "-"});
  }
  return fmt::format("{} taken so far, {} live; epoch {}; {} pages copied on write\n",
                     decimal(snapshots["taken"]), snapshots["snapshots"].size(),
                     decimal(snapshots["epoch"]), decimal(snapshots["copied_pages"])) +
         (table.is_empty() ? "" : table.text());
}

}  // namespace dbos::dbg
