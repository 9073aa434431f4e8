#include "tools/bench/machine_facts.h"

#include <fmt/core.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace dbos::bench {
namespace {

constexpr const char* kEmulated = "emulated by QEMU (TCG)";

std::string content(const char* path) {
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// The value of the first line "KEY : VALUE" of /proc/cpuinfo.
std::string processor_value(const std::string& text, const std::string& key) {
  const size_t line = text.find(key);
  if (line == std::string::npos) return {};
  const size_t value = text.find(':', line) + 2;
  return text.substr(value, text.find('\n', value) - value);
}

std::string kind_of(const std::string& processor, const std::string& flags) {
  // TCG shows the hypervisor flag, but no other hypervisor has this processor.
  if (processor.find("TCG") != std::string::npos) return kEmulated;
  if ((flags + ' ').find(" hypervisor ") != std::string::npos) return "virtual machine";
  return "hardware";
}

// The chosen one of "always [madvise] never".
std::string chosen(const std::string& text) {
  const size_t begin = text.find('[');
  return begin == std::string::npos ? text : text.substr(begin + 1, text.find(']') - begin - 1);
}

}  // namespace

bool MachineFacts::is_emulated() const {
  return kind == kEmulated;
}

MachineFacts machine_facts() {
  const std::string processors = content("/proc/cpuinfo");
  utsname system = {};
  uname(&system);
  MachineFacts facts;
  facts.processor = processor_value(processors, "model name");
  facts.kernel = fmt::format("{} {}", system.sysname, system.release);
  facts.kind = kind_of(facts.processor, processor_value(processors, "flags"));
  facts.large_pages = chosen(content("/sys/kernel/mm/transparent_hugepage/enabled"));
  facts.clock_source = content("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  facts.mitigations_off = content("/proc/cmdline").find("mitigations=off") != std::string::npos;
  facts.cores = sysconf(_SC_NPROCESSORS_ONLN);
  facts.memory_mib = sysconf(_SC_PHYS_PAGES) / 1024 * sysconf(_SC_PAGESIZE) / 1024;
  return facts;
}

std::string MachineFacts::text() const {
  std::string text = fmt::format(
      "Machine: {}, {}, {} cores, {} MiB, {}; THP {}, clock {}, mitigations {}\n", processor, kind,
      cores, memory_mib, kernel, large_pages, clock_source, mitigations_off ? "off" : "on");
  if (is_emulated()) {
    text += "Absolute numbers of an emulated machine mean nothing, and ratios only a little.\n";
  }
  return text;
}

nlohmann::json MachineFacts::json() const {
  return {{"processor", processor},
          {"kind", kind},
          {"emulated", is_emulated()},
          {"cores", cores},
          {"memory_mib", memory_mib},
          {"kernel", kernel},
          {"large_pages", large_pages},
          {"clock_source", clock_source},
          {"mitigations_off", mitigations_off}};
}

}  // namespace dbos::bench
