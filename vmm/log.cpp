#include "vmm/log.h"

#include <asm/unistd.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <cstring>
#include <memory>

#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"

namespace dbos::vmm {
namespace {

int log_descriptor = 2;

class LineSink : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    constexpr std::string_view kPrefix = "dbos-run: ";
    char line[1200];
    const size_t room = sizeof line - kPrefix.size() - 1;
    const size_t length = std::min(message.payload.size(), room);
    std::memcpy(line, kPrefix.data(), kPrefix.size());
    std::memcpy(line + kPrefix.size(), message.payload.data(), length);
    const size_t size = kPrefix.size() + length + 1;
    line[size - 1] = '\n';
    raw_call(__NR_write, static_cast<uint64_t>(log_descriptor), reinterpret_cast<uint64_t>(line),
             size);
  }
  void flush_() override {}
};

// Never freed: it is used until the very end.
spdlog::logger& make_logger() {
  auto* const made = new spdlog::logger("dbos-run", std::make_shared<LineSink>());
  made->set_level(spdlog::level::warn);
  // spdlog's own handler locks and formats the time.
  made->set_error_handler([](const std::string& /*message*/) {});
  return *made;
}

spdlog::logger& logger = make_logger();

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kDebug:
      break;
  }
  return spdlog::level::debug;
}

}  // namespace

void set_log_level(LogLevel level) {
  logger.set_level(spdlog_level(level));
}

bool is_logged(LogLevel level) {
  return logger.should_log(spdlog_level(level));
}

void write_log_line(LogLevel level, std::string_view text) {
  logger.log(spdlog_level(level), spdlog::string_view_t(text.data(), text.size()));
}

void write_log_line(std::string_view text) {
  logger.log(spdlog::level::critical, spdlog::string_view_t(text.data(), text.size()));
}

void keep_log_descriptor() {
  const int64_t copy = raw_call(__NR_dup, 2);
  if (copy >= 0) log_descriptor = keep_descriptor(static_cast<int>(copy));
}

}  // namespace dbos::vmm
