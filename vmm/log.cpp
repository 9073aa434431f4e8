#include "vmm/log.h"

#include <asm/unistd.h>
#include <fmt/format.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <iterator>
#include <memory>

#include "hypercall/abi.h"
#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/host/signal_mask.h"
#include "vmm/printable.h"

namespace dbos::vmm {
namespace {

constexpr int kStandardError = 2;

int log_descriptor = kStandardError;
const DescriptorGuard* keeper = nullptr;  // of the process that has it
struct stat standard_error = {};          // at the start

bool is_as_at_the_start() {
  struct stat now = {};
  return raw_call(__NR_fstat, kStandardError, reinterpret_cast<uint64_t>(&now)) == 0 &&
         now.st_dev == standard_error.st_dev && now.st_ino == standard_error.st_ino &&
         now.st_rdev == standard_error.st_rdev;
}

// Of the calling process; -1: it has none. A child has no copy of its own.
int destination() {
  if (keeper == nullptr || keeper == &own_descriptors()) return log_descriptor;
  return is_as_at_the_start() ? kStandardError : -1;
}

// Of SIGPIPE and SIGXFSZ, which a write may raise: whoever reads standard error may be gone.
constexpr uint64_t kWriteSignals = signal_bit(SIGPIPE) | signal_bit(SIGXFSZ);

// With kWriteSignals blocked: those that the write raised go, those that waited before stay.
void write_and_take_signals(std::string_view text) {
  const uint64_t pending = pending_signals();
  const int64_t written = raw_call(__NR_write, static_cast<uint64_t>(destination()),
                                   reinterpret_cast<uint64_t>(text.data()), text.size());
  const uint64_t raised = kWriteSignals & ~pending;
  if (written >= 0 || raised == 0) return;
  const timespec no_time = {};
  raw_call(__NR_rt_sigtimedwait, reinterpret_cast<uint64_t>(&raised), 0,
           reinterpret_cast<uint64_t>(&no_time), sizeof raised);
}

class LineSink : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    constexpr std::string_view kPrefix = "dbos-run: ";
    char line[1200];
    const size_t room = sizeof line - kPrefix.size() - 1;
    const size_t length = std::min(message.payload.size(), room);
    std::memcpy(line, kPrefix.data(), kPrefix.size());
    std::memcpy(line + kPrefix.size(), message.payload.data(), length);
    make_printable(line + kPrefix.size(), length);
    const size_t size = kPrefix.size() + length + 1;
    line[size - 1] = '\n';
    write_to_log({line, size});
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

void write_formatted_line(LogLevel level, fmt::string_view format, fmt::format_args values) {
  if (!is_logged(level)) return;
  fmt::memory_buffer line;
  fmt::vformat_to(std::back_inserter(line), format, values);
  write_log_line(level, {line.data(), line.size()});
}

void write_to_log(std::string_view text) {
  const uint64_t before = change_signal_mask(SIG_BLOCK, kWriteSignals);
  write_and_take_signals(text);
  // A handler of ours that ran meanwhile may have left all blocked (signals.h): that stays.
  const uint64_t now = change_signal_mask(SIG_SETMASK, ~uint64_t{0});
  change_signal_mask(SIG_SETMASK, now == (before | kWriteSignals) ? before : now);
}

void keep_log_descriptor() {
  const int64_t copy = raw_call(__NR_dup, kStandardError);
  log_descriptor = copy < 0 ? -1 : keep_descriptor(static_cast<int>(copy));
  keeper = &own_descriptors();
  if (copy >= 0) {
    raw_call(__NR_fstat, kStandardError, reinterpret_cast<uint64_t>(&standard_error));
  }
}

void give_up_log_descriptor() {
  if (own_descriptors().is_ours(log_descriptor)) close_kept(log_descriptor);
}

}  // namespace dbos::vmm
