#include "vmm/debug/admission.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

using dbos::vmm::find_secret;
using dbos::vmm::make_secret;

TEST_CASE("the secret is found by who may look into the process, where its socket is") {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  struct stat file = {};
  REQUIRE(fstat(socket, &file) == 0);
  std::thread([&] {
    REQUIRE_FALSE(find_secret(getpid(), file.st_ino));  // no thread has the name
    pthread_setname_np(pthread_self(), dbos::vmm::kControlThread);
    const auto secret = make_secret();
    REQUIRE(secret);
    REQUIRE(secret->size() == 32);
    REQUIRE(find_secret(getpid(), file.st_ino) == secret);
    REQUIRE_FALSE(find_secret(getpid(), file.st_ino + 1));
    REQUIRE_FALSE(find_secret(0, file.st_ino));
    if (geteuid() != 0) return;
    const pid_t other = getpid();
    const pid_t child = fork();
    if (child == 0) _exit(setuid(65534) == 0 && !find_secret(other, file.st_ino) ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    REQUIRE(status == 0);
  }).join();
  close(socket);
}
