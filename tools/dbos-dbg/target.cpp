#include "tools/dbos-dbg/target.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "tools/dbos-dbg/expression.h"
#include "vmm/debug/gdb_packet.h"
#include "vmm/machine/kernel_image.h"

namespace dbos::dbg {
namespace {

constexpr uint64_t kKernelStackRead = 8192;

volatile std::sig_atomic_t is_interrupted = 0;

void note_interrupt(int) {
  is_interrupted = 1;
}

bool is_same(const std::vector<vmm::LoadedModule>& a, const std::vector<vmm::LoadedModule>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& one, const auto& other) {
    return one.path == other.path && one.bias == other.bias;
  });
}

}  // namespace

InterruptGuard::InterruptGuard() {
  is_interrupted = 0;
  struct sigaction action = {};
  action.sa_handler = note_interrupt;
  sigaction(SIGINT, &action, &before_);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &before_, nullptr);
}

bool InterruptGuard::was_interrupted() {
  return is_interrupted != 0;
}

Target::Target(const Address& address)
    : connection_(address),
      description_(connection_.ask("debug", Json::object(), Connection::Wait::kForATurn)) {}

Json Target::ask(const std::string& command, const Json& arguments) {
  return connection_.ask(command, arguments, Connection::Wait::kForATurn);
}

void Target::write_core(int file) {
  connection_.ask("core", {{"thread", thread()}}, Connection::Wait::kForATurn, file);
}

Json Target::threads() {
  return ask("threads");
}

uint64_t Target::thread() {
  if (!thread_) {
    const Json all = threads();
    if (all.empty()) throw Failure("the program has no thread");
    thread_ = all[0]["thread"].get<uint64_t>();
  }
  return *thread_;
}

void Target::choose(uint64_t thread) {
  const Json all = threads();
  const bool exists = std::any_of(all.begin(), all.end(),
                                  [&](const Json& entry) { return entry["thread"] == thread; });
  if (!exists) throw Failure("the program has no thread " + std::to_string(thread));
  thread_ = thread;
  registers_ = nullptr;
}

const Json& Target::registers(Which which) {
  if (registers_.is_null() || (which == Which::kAll && known_registers_ != which)) {
    registers_ = ask("registers", {{"thread", thread()}, {"all", which == Which::kAll}});
    known_registers_ = which;
  }
  return registers_;
}

std::optional<uint64_t> Target::register_value(const std::string& name) {
  const std::string known = name == "pc"   ? "rip"
                            : name == "sp" ? "rsp"
                            : name == "fp" ? "rbp"
                                           : name;
  const Json& values = registers().at("registers");
  const auto found = values.find(known);
  if (found == values.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<uint64_t>();
}

const std::vector<uint8_t>& Target::page(uint64_t address) {
  const auto [entry, is_new] = pages_.try_emplace(address);
  if (!is_new) return entry->second;
  const Json answer = ask("read", {{"address", address}, {"length", kPageSize}});
  const auto bytes = vmm::from_hex(answer["bytes"].get<std::string>());
  if (!bytes) throw Failure("dbos-run's answer can't be read: is it of another version?");
  entry->second.assign(bytes->begin(), bytes->end());
  return entry->second;
}

size_t Target::read(uint64_t address, void* destination, size_t size) {
  size_t done = 0;
  while (done < size) {
    const uint64_t at = address + done;
    const std::vector<uint8_t>& bytes = page(at - at % kPageSize);
    const size_t offset = at % kPageSize;
    if (offset >= bytes.size()) break;
    const size_t part = std::min(size - done, bytes.size() - offset);
    std::memcpy(static_cast<char*>(destination) + done, &bytes[offset], part);
    done += part;
  }
  return done;
}

const std::vector<vmm::LoadedModule>& Target::modules() {
  if (modules_.empty()) {
    modules_ = vmm::loaded_modules(
        [this](uint64_t address, void* bytes, size_t size) { return read(address, bytes, size); },
        description_["program"].get<std::string>(), description_["auxiliary_begin"],
        description_["auxiliary_end"]);
  }
  return modules_;
}

const vmm::Symbols& Target::symbols() {
  if (!symbols_ || !is_same(modules(), symbols_of_)) {
    const bool has_kernel = description_["kernel"] == vmm::kernel_identity();
    symbols_of_ = modules();
    symbols_ = std::make_unique<vmm::Symbols>(
        symbols_of_, has_kernel ? vmm::built_in_kernel() : std::span<const std::byte>());
  }
  return *symbols_;
}

uint64_t Target::evaluate(const std::string& text) {
  const ExpressionScope scope = {[this](const std::string& name) { return register_value(name); },
                                 [this](const std::string& name) { return symbols().find(name); },
                                 [this](uint64_t address) -> std::optional<uint64_t> {
                                   uint64_t word = 0;
                                   if (read(address, &word, sizeof word) < sizeof word)
                                     return std::nullopt;
                                   return word;
                                 }};
  return dbg::evaluate(text, scope);
}

std::vector<CallFrame> Target::backtrace() {
  const vmm::MemoryReader reader = [this](uint64_t address, void* bytes, size_t size) {
    return read(address, bytes, size);
  };
  // A thread in a call may come back while this goes on: its part of the kernel's stack is read
  // first.
  registers_ = nullptr;
  std::optional<std::pair<uint64_t, uint64_t>> kernel;  // instruction, frame pointer
  if (registers().contains("kernel") && description_["kernel"] == vmm::kernel_identity()) {
    const Json& place = registers_["kernel"];
    kernel = {place["instruction"].get<uint64_t>(), place["frame_pointer"].get<uint64_t>()};
    const uint64_t stack = kernel->second - kernel->second % kPageSize;
    pages_.clear();
    for (uint64_t at = stack; at < stack + kKernelStackRead; at += kPageSize) page(at);
  }
  const auto value = [this](const char* name) { return register_value(name).value_or(0); };
  ProgramFrame frame = {};
  frame.r15 = value("r15"), frame.r14 = value("r14"), frame.r13 = value("r13");
  frame.r12 = value("r12"), frame.rbp = value("rbp"), frame.rbx = value("rbx");
  frame.r11 = value("r11"), frame.r10 = value("r10"), frame.r9 = value("r9");
  frame.r8 = value("r8"), frame.rax = value("rax"), frame.rcx = value("rcx");
  frame.rdx = value("rdx"), frame.rsi = value("rsi"), frame.rdi = value("rdi");
  frame.rip = value("rip"), frame.rsp = value("rsp");
  std::vector<CallFrame> frames;
  if (kernel) {
    frames = vmm::kernel_backtrace(vmm::built_in_kernel(), kernel->first, kernel->second, reader);
  }
  for (CallFrame& one : vmm::program_backtrace(frame, reader, modules())) {
    frames.push_back(std::move(one));
  }
  return frames;
}

void Target::forget() {
  registers_ = nullptr;
  pages_.clear();
  modules_.clear();
}

Json Target::run(Go go) {
  Json arguments = Json::object();
  if (go == Go::kOneInstruction) arguments = {{"step", true}, {"thread", thread()}};
  // Not ask(): an event may be on the heels of the answer.
  const uint64_t id = connection_.send("run", arguments);
  forget();
  Json event = wait_for_stop(id);
  if (event.contains("thread")) thread_ = event["thread"].get<uint64_t>();
  return event;
}

Json Target::wait_for_stop(uint64_t id) {
  uint64_t interrupt = 0;  // its request; 0: none
  for (;;) {
    // If it comes too late, its answer, an error, is behind the event, and nobody's.
    if (InterruptGuard::was_interrupted() && interrupt == 0) {
      interrupt = connection_.send("interrupt", Json::object());
    }
    std::optional<Json> line = connection_.receive(Connection::Wait::kForATurn);
    if (line) {
      if (line->contains("event")) return *line;
      const uint64_t answered = line->value("id", id);
      const bool has_failed = (*line)["ok"] != true;
      const std::string error = line->value("error", "it failed");
      if (has_failed && answered == id) throw Failure(error);
      if (has_failed && answered == interrupt) {
        fmt::print(stderr, "{}; Ctrl-C tries it again\n", error);
        is_interrupted = 0;  // one that came meanwhile has got the same answer
        interrupt = 0;
      }
    } else if (connection_.has_ended()) {
      throw Failure("the program has ended");
    }
  }
}

}  // namespace dbos::dbg
