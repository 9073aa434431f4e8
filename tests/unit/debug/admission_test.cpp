#include "vmm/control/admission.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

#include "tests/unit/skipped.h"

using dbos::vmm::find_secret;
using dbos::vmm::make_secret;

namespace {

// A socket of this process, for which the thread that the test goes on in has a secret.
template <typename Test>
void with_secret(Test test) {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  struct stat file = {};
  REQUIRE(fstat(socket, &file) == 0);
  std::thread([&] {
    REQUIRE_FALSE(find_secret(getpid(), file.st_ino));  // no thread has the name
    pthread_setname_np(pthread_self(), dbos::vmm::kControlThread);
    const auto secret = make_secret();
    REQUIRE(secret);
    test(*secret, file.st_ino);
    // Linux lists a thread a little longer than until it is joined.
    pthread_setname_np(pthread_self(), "ended");
  }).join();
  close(socket);
}

}  // namespace

TEST_CASE("the secret is found by who may look into the process, where its socket is") {
  with_secret([](const auto& secret, ino_t socket) {
    REQUIRE(secret.size() == 32);
    REQUIRE(find_secret(getpid(), socket) == secret);
    REQUIRE_FALSE(find_secret(getpid(), socket + 1));
    REQUIRE_FALSE(find_secret(0, socket));
  });
}

TEST_CASE("the secret is not found by another user") {
  if (geteuid() != 0) return skip_case("only root can become another user");
  with_secret([](const auto&, ino_t socket) {
    const pid_t other = getpid();
    const pid_t child = fork();
    if (child == 0) _exit(setuid(65534) == 0 && !find_secret(other, socket) ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    REQUIRE(status == 0);
  });
}
