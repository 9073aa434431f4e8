#include "vmm/control/admission.h"

#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace dbos::vmm {
namespace {

namespace files = std::filesystem;

constexpr std::string_view kPrefix = "/memfd:dbos-control-";
constexpr size_t kDigits = 32;

// Some machines ask for the flag, of which older kernels know nothing.
int make_file(const char* name) {
  constexpr unsigned kNeverExecutable = 8;  // MFD_NOEXEC_SEAL
  const int file = memfd_create(name, MFD_CLOEXEC | kNeverExecutable);
  return file >= 0 || errno != EINVAL ? file : memfd_create(name, MFD_CLOEXEC);
}

bool is_control_thread(const files::path& folder) {
  std::ifstream file(folder / "comm");
  std::string name;
  return std::getline(file, name) && name == kControlThread;
}

// Of the links in a folder /proc/.../fd.
std::optional<std::string> secret_among(const files::path& folder, const std::string& socket) {
  std::optional<std::string> secret;
  bool has_socket = false;
  std::error_code error;
  for (files::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code none;  // a descriptor that is closed meanwhile
    const std::string target = files::read_symlink(entry->path(), none);
    has_socket = has_socket || target == socket;
    if (target.starts_with(kPrefix)) secret = target.substr(kPrefix.size(), kDigits);
  }
  return has_socket ? secret : std::nullopt;
}

}  // namespace

std::optional<std::string> make_secret() {
  uint8_t random[kDigits / 2];
  if (getrandom(random, sizeof random, 0) != sizeof random) return std::nullopt;
  std::string secret;
  for (const uint8_t byte : random) secret += fmt::format("{:02x}", byte);
  const size_t folder = kPrefix.find(':') + 1;  // what Linux puts before the name
  const std::string name = std::string(kPrefix.substr(folder)) + secret;
  if (make_file(name.c_str()) < 0) return std::nullopt;
  return secret;
}

std::optional<std::string> find_secret(pid_t process, uint64_t socket_inode) {
  const std::string socket = fmt::format("socket:[{}]", socket_inode);
  std::error_code error;
  for (files::directory_iterator entry(fmt::format("/proc/{}/task", process), error), end;
       !error && entry != end; entry.increment(error)) {
    if (!is_control_thread(entry->path())) continue;
    if (auto secret = secret_among(entry->path() / "fd", socket)) return secret;
  }
  return std::nullopt;
}

}  // namespace dbos::vmm
