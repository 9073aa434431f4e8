// execve and what is built on it: what a program keeps and loses, scripts, errors, fexecve,
// posix_spawn, system and popen; exec from threads and after fork.
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <thread>

#include "support.h"

extern char** environ;

namespace {

// Runs this program's helper in the place of the current process.
void become(const char* helper, std::vector<std::string> more = {}) {
  std::vector<std::string> all = {check::self, "--helper", helper};
  all.insert(all.end(), more.begin(), more.end());
  std::vector<char*> argv;
  for (std::string& one : all) argv.push_back(one.data());
  argv.push_back(nullptr);
  execv(check::self.c_str(), argv.data());
  check::failed(__FILE__, __LINE__, "execv");
}
void write_file(const char* path, const std::string& text, mode_t mode) {
  unlink(path);
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
  REQUIRE(file != -1);
  REQUIRE(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  REQUIRE(fchmod(file, mode) == 0);
  close(file);
}
long exec_of(const char* path) {
  char name[] = "name";
  char* argv[] = {name, nullptr};
  char* env[] = {nullptr};
  return execve(path, argv, env);
}
void counter(int) {}

}  // namespace

HELPER(say) {
  for (int i = 0; i < argc; ++i) check::print("%s%s", i == 0 ? "" : " ", argv[i]);
  check::print("\n");
  return 0;
}
HELPER(leave) {
  return atoi(argv[0]);
}
HELPER(signal_state) {
  struct sigaction action = {};
  sigaction(SIGUSR1, nullptr, &action);
  check::print("caught became %s\n", action.sa_handler == SIG_DFL ? "default" : "other");
  sigaction(SIGUSR2, nullptr, &action);
  check::print("ignored stayed %s\n", action.sa_handler == SIG_IGN ? "ignored" : "other");
  sigset_t set, waiting;
  sigprocmask(SIG_BLOCK, nullptr, &set);
  sigpending(&waiting);
  check::print("SIGHUP blocked %d, pending %d\n", sigismember(&set, SIGHUP),
               sigismember(&waiting, SIGHUP));
  stack_t stack = {};
  sigaltstack(nullptr, &stack);
  check::print("alternate stack %s\n", stack.ss_flags == SS_DISABLE ? "none" : "kept");
  return 0;
}
HELPER(last_signal) {
  sigset_t set;
  sigprocmask(SIG_BLOCK, nullptr, &set);
  struct sigaction action = {};
  sigaction(SIGRTMAX, nullptr, &action);
  check::print("SIGRTMAX blocked %d, ignored %d\n", sigismember(&set, SIGRTMAX),
               action.sa_handler == SIG_IGN);
  return 0;
}
HELPER(death_signal) {
  int signal = -1;
  prctl(PR_GET_PDEATHSIG, &signal);
  check::print("signal when the parent dies: %d\n", signal);
  return 0;
}
HELPER(descriptors) {
  for (int i = 0; i < argc; ++i) {
    check::print("descriptor %d: %s\n", i, fcntl(atoi(argv[i]), F_GETFD) == -1 ? "closed" : "open");
  }
  return 0;
}
HELPER(process_state) {
  check::print("same pid %d, same group %d\n", atoi(argv[0]) == getpid(),
               atoi(argv[1]) == getpgrp());
  char directory[4096] = "";
  if (getcwd(directory, sizeof directory) == nullptr) return 1;
  mode_t mask = umask(0);
  rlimit limit = {};
  getrlimit(RLIMIT_CORE, &limit);
  char name[16] = "";
  prctl(PR_GET_NAME, name);
  check::print("directory %s, umask %03o, core limit %ld, alarm %d, name %s\n", directory, mask,
               static_cast<long>(limit.rlim_cur), alarm(0) > 900, name);
  return 0;
}
HELPER(fresh_memory) {
  // Nothing of the old program's memory may shine through.
  for (int i = 0; i < 8; ++i) {
    void* at = map_anonymous(kMiB);
    for (size_t j = 0; j < kMiB; j += 64) {
      if (bytes(at)[j] != 0) return 1;
    }
  }
  uintptr_t old = strtoul(argv[0], nullptr, 16);
  for (const MapLine& line : read_maps()) {
    if (line.start <= old && old < line.end && line.end - line.start == 3 * kMiB) return 2;
  }
  check::print("threads left: %zu\n", [] {
    std::string status = read_all("/proc/self/status");
    size_t at = status.find("Threads:");
    return at == std::string::npos ? size_t{0} : strtoul(status.c_str() + at + 8, nullptr, 10);
  }());
  return 0;
}
HELPER(copy_input) {
  char block[1000];
  for (ssize_t n; (n = read(STDIN_FILENO, block, sizeof block)) > 0;) {
    if (write(STDOUT_FILENO, block, static_cast<size_t>(n)) != n) return 1;
  }
  return 0;
}
HELPER(again) {
  int left = atoi(argv[0]);
  if (left == 0) {
    check::print("the last one\n");
    return 0;
  }
  become("again", {std::to_string(left - 1)});
  return 1;
}
HELPER(fork_after_exec) {
  int status = run_child([] { _exit(31); });
  check::print("the child's status: %d\n", WEXITSTATUS(status));
  std::thread([] { check::print("a thread after execve\n"); }).join();
  return 0;
}
HELPER(groups) {
  check::print("own group %d, SIGUSR2 %s, SIGHUP blocked %d\n", getpgrp() == getpid(),
               signal(SIGUSR2, SIG_DFL) == SIG_DFL ? "default" : "other", [] {
                 sigset_t set;
                 sigprocmask(SIG_BLOCK, nullptr, &set);
                 return sigismember(&set, SIGHUP);
               }());
  return 0;
}

CASE(program_replaces_itself) {
  CHECK(exited(run_child([] { become("say", {"hello", "from", "the", "new", "one"}); })));
  CHECK(exited(run_child([] { become("leave", {"77"}); }), 77));
  CHECK(exited(run_child([] { become("again", {"5"}); })));
}

CASE(process_goes_on_as_before) {
  CHECK(exited(run_child([] {
    REQUIRE(chdir("/usr") == 0);
    umask(027);
    rlimit limit = {0, 0};
    setrlimit(RLIMIT_CORE, &limit);
    alarm(1000);
    pthread_setname_np(pthread_self(), "old name");
    become("process_state", {std::to_string(getpid()), std::to_string(getpgrp())});
  })));
}

CASE(signal_state_after_exec) {
  CHECK(exited(run_child([] {
    install(SIGUSR1, counter);
    signal(SIGUSR2, SIG_IGN);
    static char stack[64 * kKiB];
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    sigset_t set = set_of(SIGHUP);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    raise(SIGHUP);
    become("signal_state");
  })));
}

CASE(last_signal_after_exec) {
  const auto with = [](void (*handler)(int), int how) {
    CHECK(exited(run_child([=] {
      install(SIGRTMAX, handler);
      sigset_t all;
      sigfillset(&all);
      sigprocmask(how, &all, nullptr);
      become("last_signal");
    })));
  };
  with(SIG_IGN, SIG_BLOCK);
  with(SIG_IGN, SIG_UNBLOCK);
  with(counter, SIG_BLOCK);
  with(SIG_DFL, SIG_UNBLOCK);
}

CASE(close_on_exec_decides) {
  CHECK(exited(run_child([] {
    int kept = open("/dev/null", O_RDONLY), closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int changed = dup(closed), both = fcntl(kept, F_DUPFD_CLOEXEC, 100);
    fcntl(changed, F_SETFD, FD_CLOEXEC);
    fcntl(both, F_SETFD, 0);
    become("descriptors", {std::to_string(kept), std::to_string(closed), std::to_string(changed),
                           std::to_string(both)});
  })));
}

CASE(old_memory_and_threads_are_gone) {
  CHECK(exited(run_child([] {
    for (int i = 0; i < 3; ++i) {
      std::thread([] {
        for (;;) pause();
      }).detach();
    }
    std::thread([] {
      for (;;) sched_yield();
    }).detach();
    void* at = map_anonymous(3 * kMiB);
    memset(at, 0xaa, 3 * kMiB);
    char where[32];
    snprintf(where, sizeof where, "%lx", reinterpret_cast<uintptr_t>(at));
    become("fresh_memory", {where});
  })));
}

CASE(thread_that_execs_becomes_the_process) {
  CHECK(exited(run_child([] {
    pid_t process = getpid();
    REQUIRE(chdir("/") == 0);
    std::thread([=] {
      become("process_state", {std::to_string(process), std::to_string(getpgrp())});
    }).detach();
    for (;;) pause();
  })));
}

CASE(fork_and_threads_work_after_exec) {
  CHECK(exited(run_child([] { become("fork_after_exec"); })));
}

CASE(errors_leave_the_program_running) {
  CHECK_ERRNO(exec_of("no-such-file"), ENOENT);
  CHECK_ERRNO(exec_of(""), ENOENT);
  CHECK_ERRNO(exec_of("/dev/null/x"), ENOTDIR);
  CHECK_ERRNO(exec_of("/"), EACCES);
  CHECK_ERRNO(exec_of(std::string(5000, 'a').c_str()), ENAMETOOLONG);
  CHECK_ERRNO(exec_of(std::string(300, 'a').c_str()), ENAMETOOLONG);
  write_file("plain", "echo plain\n", 0600);
  CHECK_ERRNO(exec_of("plain"), EACCES);
  write_file("plain", "echo plain\n", 0700);
  CHECK_ERRNO(exec_of("plain"), ENOEXEC);
  write_file("plain", "", 0700);
  CHECK_ERRNO(exec_of("plain"), ENOEXEC);
  write_file("plain", "\177ELF", 0700);
  CHECK_ERRNO(exec_of("plain"), ENOEXEC);
  write_file("plain", "#!/no/such/interpreter\n", 0700);
  CHECK_ERRNO(exec_of("plain"), ENOENT);
  REQUIRE(symlink("loop", "loop") == 0);
  CHECK_ERRNO(exec_of("loop"), ELOOP);
  char* env[] = {nullptr};
  CHECK_ERRNO(execve(reinterpret_cast<char*>(8), env, env), EFAULT);
  CHECK_ERRNO(execve(check::self.c_str(), reinterpret_cast<char**>(8), env), EFAULT);
  CHECK_ERRNO(syscall(SYS_execve, check::self.c_str(), check::arguments, 8), EFAULT);
  int busy = open("plain", O_WRONLY | O_CLOEXEC);
  CHECK_ERRNO(exec_of("plain"), ETXTBSY);
  close(busy);
  unlink("plain");
  unlink("loop");
}

CASE(scripts_run_through_their_interpreter) {
  write_file("script", "#!/bin/sh\necho script: \"$0\" \"$1\" $#\nexit 3\n", 0700);
  CHECK(exited(run_child([] { execl("./script", "ignored", "one argument", nullptr); }), 3));
  write_file("script", "#!/bin/sh -e\nfalse\necho not reached\n", 0700);
  CHECK(exited(run_child([] { execl("./script", "script", nullptr); }), 1));
  write_file("script", "echo without a first line\n", 0700);
  CHECK(exited(run_child([] { execlp("./script", "script", nullptr); })));  // the library tries sh
  unlink("script");
}

CASE(script_of_a_script) {
  write_file("inner", "#!/bin/sh\necho inner \"$1\"\n", 0700);
  write_file("outer", "#!./inner\n", 0700);
  CHECK(exited(run_child([] { execl("./outer", "outer", nullptr); })));
  unlink("inner");
  unlink("outer");
}

CASE(search_path_is_used) {
  setenv("PATH", "/nonexistent:/usr/bin:/bin", 1);
  CHECK(exited(run_child([] { execlp("true", "true", nullptr); })));
  CHECK(exited(run_child([] { execlp("false", "false", nullptr); }), 1));
  CHECK_ERRNO(execlp("no-such-command-anywhere", "x", nullptr), ENOENT);
}

CASE(environment_is_the_given_one) {
  CHECK(exited(run_child([] {
    char one[] = "ONE=1", two[] = "TWO=two words";
    char* env[] = {one, two, nullptr};
    execle("/usr/bin/env", "env", nullptr, env);
  })));
  CHECK(exited(run_child([] {
    clearenv();
    setenv("SET", "by setenv", 1);
    execl("/usr/bin/env", "env", nullptr);
  })));
}

CASE(open_file_can_be_executed) {
  int file = open(check::self.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(file != -1);
  char zero[] = "x", helper[] = "--helper", say[] = "leave", what[] = "44";
  char* argv[] = {zero, helper, say, what, nullptr};
  CHECK(exited(run_child([&] { fexecve(file, argv, environ); }), 44));
  CHECK(exited(run_child([&] { syscall(SYS_execveat, file, "", argv, environ, AT_EMPTY_PATH); }),
               44));
  CHECK_ERRNO(fexecve(-1, argv, environ), EINVAL);
  CHECK_ERRNO(syscall(SYS_execveat, -1, "", argv, environ, AT_EMPTY_PATH), EBADF);
  CHECK_ERRNO(syscall(SYS_execveat, file, "", argv, environ, 0), ENOENT);
  close(file);
}

[[gnu::noinline]] static int exec_in_vfork(const char* path) {
  pid_t child = vfork();
  REQUIRE(child != -1);
  if (child == 0) {
    execl(path, "name", nullptr);
    _exit(errno == ENOENT ? 98 : 97);
  }
  return status_of(child);
}

CASE(death_signal_stays) {
  CHECK(exited(run_child([] { become("death_signal"); })));
  CHECK(exited(run_child([] {
    int signal = -1;
    CHECK_EQ(prctl(PR_GET_PDEATHSIG, &signal), 0);
    CHECK_EQ(signal, 0);
    CHECK_ERRNO(prctl(PR_GET_PDEATHSIG, nowhere()), EFAULT);
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGTERM), 0);
    CHECK_EQ(exec_of("/nowhere"), -1);
    CHECK_EQ(prctl(PR_GET_PDEATHSIG, &signal), 0);
    CHECK_EQ(signal, SIGTERM);
    become("death_signal");
  })));
}

CASE(children_outlive_the_program_that_replaced_their_parent) {
  Pipe tell, go;
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t parent = start_child([&] {
    start_child([&] {
      go.close_write();
      go.take();  // until the program that its parent became is gone
      tell.post('y');
    });
    exec_of("/nowhere");
    become("leave", {"5"});
  });
  CHECK(exited(status_of(parent), 5));
  timespec pause = {0, 100'000'000};
  nanosleep(&pause, nullptr);
  go.close_write();
  tell.close_write();
  CHECK_EQ(tell.take(), 'y');
  int status = 0;
  CHECK(wait(&status) > 0);  // the orphan came to us
  CHECK(exited(status));
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
}

CASE(exec_after_vfork) {
  for (int i = 0; i < 10; ++i) CHECK(exited(exec_in_vfork("/bin/true")));
  CHECK(exited(exec_in_vfork("/no/such/program"), 98));
}

CASE(spawn_runs_a_program) {
  std::string path = check::self;
  char helper[] = "--helper", leave[] = "leave", number[] = "55";
  char* argv[] = {path.data(), helper, leave, number, nullptr};
  pid_t child = -1;
  for (int i = 0; i < 5; ++i) {
    CHECK_EQ(posix_spawn(&child, path.c_str(), nullptr, nullptr, argv, environ), 0);
    CHECK(exited(status_of(child), 55));
  }
  CHECK_EQ(posix_spawn(&child, "/no/such/program", nullptr, nullptr, argv, environ), ENOENT);
  CHECK_EQ(posix_spawnp(&child, "true", nullptr, nullptr, argv, environ), 0);
  CHECK(exited(status_of(child)));
}

CASE(spawn_file_actions) {
  Pipe in, out;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.in(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.out(), STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, 60, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addclose(&actions, 60);
  std::string path = check::self;
  char helper[] = "--helper", name[] = "copy_input";
  char* argv[] = {path.data(), helper, name, nullptr};
  pid_t child = -1;
  REQUIRE(posix_spawn(&child, path.c_str(), &actions, nullptr, argv, environ) == 0);
  out.close_write();
  REQUIRE(write(in.out(), "through the child", 17) == 17);
  in.close_write();
  char text[32] = "";
  size_t got = 0;
  for (ssize_t n; (n = read(out.in(), text + got, sizeof text - got)) > 0;)
    got += static_cast<size_t>(n);
  CHECK_EQ(got, 17);
  CHECK(memcmp(text, "through the child", 17) == 0);
  CHECK(exited(status_of(child)));
  posix_spawn_file_actions_destroy(&actions);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 61, "/no/such/file", O_RDONLY, 0);
  CHECK_EQ(posix_spawn(&child, path.c_str(), &actions, nullptr, argv, environ), ENOENT);
  posix_spawn_file_actions_destroy(&actions);
}

CASE(spawn_attributes) {
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t block = set_of(SIGHUP), defaults = set_of(SIGUSR2);
  signal(SIGUSR2, SIG_IGN);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setsigmask(&attributes, &block);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  std::string path = check::self;
  char helper[] = "--helper", name[] = "groups";
  char* argv[] = {path.data(), helper, name, nullptr};
  pid_t child = -1;
  REQUIRE(posix_spawn(&child, path.c_str(), nullptr, &attributes, argv, environ) == 0);
  CHECK(exited(status_of(child)));
  posix_spawnattr_destroy(&attributes);
  signal(SIGUSR2, SIG_DFL);
}

CASE(spawn_from_many_threads) {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        std::string path = check::self, number = std::to_string(t * 10 + i);
        char helper[] = "--helper", leave[] = "leave";
        char* argv[] = {path.data(), helper, leave, number.data(), nullptr};
        pid_t child = -1;
        REQUIRE(posix_spawn(&child, path.c_str(), nullptr, nullptr, argv, environ) == 0);
        if (exited(status_of(child), t * 10 + i)) ++right;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(right.load(), 20);
}

CASE(system_runs_a_shell) {
  CHECK_EQ(system("exit 7"), 7 << 8);
  CHECK_EQ(system("echo from the shell"), 0);
  CHECK(killed(system("kill -TERM $$"), SIGTERM));
  CHECK(system(nullptr) != 0);
  CHECK_EQ(system("no-such-command-anywhere 2>/dev/null"), 127 << 8);
}

CASE(popen_reads_and_writes) {
  FILE* pipe = popen("echo one; echo two", "r");
  REQUIRE(pipe != nullptr);
  char line[64] = "";
  CHECK(fgets(line, sizeof line, pipe) != nullptr && strcmp(line, "one\n") == 0);
  CHECK(fgets(line, sizeof line, pipe) != nullptr && strcmp(line, "two\n") == 0);
  CHECK(fgets(line, sizeof line, pipe) == nullptr);
  CHECK_EQ(pclose(pipe), 0);
  pipe = popen("cat; exit 5", "w");
  REQUIRE(pipe != nullptr);
  fputs("into the shell\n", pipe);
  CHECK_EQ(pclose(pipe), 5 << 8);
}

CASE(pipeline_of_shell_commands) {
  CHECK_EQ(system("i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); done | grep 1 | sort -r "
                  "| head -n 3"),
           0);
}

CHECK_MAIN
