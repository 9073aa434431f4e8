// The file system by name: directories, links, renames, permissions, times, extended attributes,
// the calls that end in -at, the working directory.
#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

#include <set>
#include <thread>

#include "support.h"

namespace {
void touch(const char* name, const std::string& text = "") {
  int file = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  REQUIRE(file != -1);
  REQUIRE(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  close(file);
}
struct stat info_of(const char* name, bool follow = true) {
  struct stat info = {};
  REQUIRE((follow ? stat(name, &info) : lstat(name, &info)) == 0);
  return info;
}
bool exists(const char* name) {
  struct stat info = {};
  return lstat(name, &info) == 0;
}
}  // namespace

CASE(directory_of_two_thousand_names_is_read_completely) {
  REQUIRE(mkdir("many", 0700) == 0);
  int directory = open("many", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(directory != -1);
  for (int i = 0; i < 2000; ++i) {
    std::string name = "name-" + std::to_string(i) + std::string(static_cast<size_t>(i % 100), 'n');
    int file = openat(directory, name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    REQUIRE(file != -1);
    close(file);
  }
  std::set<std::string> names;
  alignas(8) char buffer[3000];
  for (long n; (n = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0;) {
    for (long at = 0; at < n;) {
      auto* entry = reinterpret_cast<dirent64*>(buffer + at);
      CHECK(names.insert(entry->d_name).second);
      at += entry->d_reclen;
    }
  }
  CHECK_EQ(names.size(), 2002);
  CHECK(names.count(".") == 1 && names.count("..") == 1);
  CHECK_EQ(lseek(directory, 0, SEEK_SET), 0);
  CHECK_ERRNO(syscall(SYS_getdents64, directory, buffer, 8), EINVAL);
  DIR* stream = opendir("many");
  REQUIRE(stream != nullptr);
  int count = 0;
  while (readdir(stream) != nullptr) ++count;
  CHECK_EQ(count, 2002);
  closedir(stream);
  for (const std::string& name : names) unlinkat(directory, name.c_str(), 0);
  close(directory);
  CHECK_EQ(rmdir("many"), 0);
}

CASE(directories_are_made_and_removed) {
  CHECK_EQ(mkdir("dir", 0755), 0);
  CHECK_ERRNO(mkdir("dir", 0755), EEXIST);
  CHECK_ERRNO(mkdir("no/dir", 0755), ENOENT);
  touch("dir/file");
  CHECK_ERRNO(rmdir("dir"), ENOTEMPTY);
  CHECK_ERRNO(rmdir("dir/file"), ENOTDIR);
  CHECK_ERRNO(unlink("dir"), EISDIR);
  CHECK_ERRNO(mkdir("dir/file/x", 0755), ENOTDIR);
  CHECK_EQ(info_of("dir").st_mode & S_IFMT, S_IFDIR);
  CHECK_EQ(unlink("dir/file"), 0);
  CHECK_ERRNO(unlink("dir/file"), ENOENT);
  CHECK_EQ(rmdir("dir"), 0);
  CHECK_ERRNO(rmdir("."), EINVAL);
}

CASE(hard_links_count) {
  touch("one", "text");
  CHECK_EQ(link("one", "two"), 0);
  CHECK_EQ(info_of("one").st_nlink, 2);
  CHECK_EQ(info_of("one").st_ino, info_of("two").st_ino);
  CHECK_ERRNO(link("one", "two"), EEXIST);
  CHECK_ERRNO(link("missing", "three"), ENOENT);
  CHECK_EQ(unlink("one"), 0);
  CHECK_EQ(info_of("two").st_nlink, 1);
  CHECK(read_all("two") == "text");
  unlink("two");
}

CASE(symbolic_links_are_followed_or_not) {
  touch("target", "12345");
  CHECK_EQ(symlink("target", "link"), 0);
  CHECK_EQ(info_of("link").st_size, 5);
  CHECK(S_ISLNK(info_of("link", false).st_mode));
  CHECK_EQ(info_of("link", false).st_size, 6);
  char text[32];
  memset(text, '#', sizeof text);
  CHECK_EQ(readlink("link", text, sizeof text), 6);
  CHECK(memcmp(text, "target#", 7) == 0);
  CHECK_EQ(readlink("link", text, 3), 3);
  CHECK_ERRNO(readlink("target", text, 3), EINVAL);
  CHECK_ERRNO(readlink("link", text, 0), EINVAL);
  CHECK_EQ(symlink("nowhere", "dangling"), 0);
  CHECK_ERRNO(open("dangling", O_RDONLY), ENOENT);
  CHECK_EQ(symlink("b", "a"), 0);
  CHECK_EQ(symlink("a", "b"), 0);
  CHECK_ERRNO(open("a", O_RDONLY), ELOOP);
  for (const char* name : {"target", "link", "dangling", "a", "b"}) unlink(name);
}

CASE(renames_replace_and_exchange) {
  touch("one", "1");
  touch("two", "2");
  CHECK_EQ(rename("one", "two"), 0);
  CHECK(read_all("two") == "1" && !exists("one"));
  CHECK_ERRNO(rename("missing", "x"), ENOENT);
  mkdir("dir", 0700);
  mkdir("dir/inner", 0700);
  CHECK_ERRNO(rename("two", "dir"), EISDIR);
  CHECK_ERRNO(rename("dir", "two"), ENOTDIR);
  CHECK_ERRNO(rename("dir", "dir/inner/x"), EINVAL);
  touch("three", "3");
  if (renameat2(AT_FDCWD, "two", AT_FDCWD, "three", RENAME_NOREPLACE) == 0) {
    check::failed(__FILE__, __LINE__, "RENAME_NOREPLACE replaced");
  } else if (errno != EINVAL) {  // a file system that cannot says EINVAL
    CHECK_EQ(errno, EEXIST);
    CHECK_EQ(renameat2(AT_FDCWD, "two", AT_FDCWD, "three", RENAME_EXCHANGE), 0);
    CHECK(read_all("two") == "3" && read_all("three") == "1");
  }
  unlink("two");
  unlink("three");
  rmdir("dir/inner");
  rmdir("dir");
}

CASE(calls_relative_to_a_directory) {
  REQUIRE(mkdir("base", 0700) == 0);
  int base = open("base", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(base != -1);
  CHECK_EQ(mkdirat(base, "sub", 0700), 0);
  int file = openat(base, "sub/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(file >= 0);
  CHECK_ERRNO(openat(file, "x", O_RDONLY), ENOTDIR);
  CHECK_ERRNO(openat(-1, "x", O_RDONLY), EBADF);
  CHECK_EQ(symlinkat("file", base, "sub/link"), 0);
  char text[16];
  CHECK_EQ(readlinkat(base, "sub/link", text, sizeof text), 4);
  CHECK_EQ(linkat(base, "sub/file", base, "second", 0), 0);
  CHECK_EQ(renameat(base, "second", base, "third"), 0);
  struct stat info = {};
  CHECK_EQ(fstatat(base, "third", &info, 0), 0);
  CHECK_EQ(info.st_nlink, 2);
  CHECK_EQ(fstatat(base, "", &info, AT_EMPTY_PATH), 0);
  CHECK(S_ISDIR(info.st_mode));
  CHECK_EQ(fstatat(base, "sub/link", &info, AT_SYMLINK_NOFOLLOW), 0);
  CHECK(S_ISLNK(info.st_mode));
  CHECK_ERRNO(fstatat(base, "x", &info, 0x10000), EINVAL);
  CHECK_EQ(faccessat(base, "third", R_OK, 0), 0);
  CHECK_EQ(fchmodat(base, "third", 0640, 0), 0);
  CHECK_EQ(unlinkat(base, "third", 0), 0);
  CHECK_EQ(unlinkat(base, "sub/link", 0), 0);
  CHECK_EQ(unlinkat(base, "sub/file", 0), 0);
  CHECK_ERRNO(unlinkat(base, "sub", 0), EISDIR);
  CHECK_EQ(unlinkat(base, "sub", AT_REMOVEDIR), 0);
  close(file);
  close(base);
  rmdir("base");
}

CASE(statx_tells_the_same_as_stat) {
  touch("file", "0123456789");
  struct stat old = info_of("file");
  struct statx now = {};
  CHECK_EQ(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &now), 0);
  CHECK_EQ(now.stx_size, old.st_size);
  CHECK_EQ(now.stx_mode, old.st_mode);
  CHECK_EQ(now.stx_ino, old.st_ino);
  CHECK_EQ(now.stx_nlink, old.st_nlink);
  CHECK_EQ(now.stx_mtime.tv_sec, old.st_mtim.tv_sec);
  CHECK_EQ(makedev(now.stx_dev_major, now.stx_dev_minor), old.st_dev);
  CHECK_ERRNO(statx(AT_FDCWD, "missing", 0, STATX_BASIC_STATS, &now), ENOENT);
  CHECK_ERRNO(statx(AT_FDCWD, "file", 0, 0x80000000u, &now), EINVAL);
  unlink("file");
}

CASE(modes_and_masks) {
  mode_t old = umask(027);
  int file = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  close(file);
  CHECK_EQ(info_of("file").st_mode & 07777, 0640);
  CHECK_EQ(mkdir("dir", 0777), 0);
  CHECK_EQ(info_of("dir").st_mode & 07777, 0750);
  CHECK_EQ(umask(old), 027);
  CHECK_EQ(chmod("file", 0604), 0);
  CHECK_EQ(info_of("file").st_mode & 07777, 0604);
  CHECK_EQ(access("file", F_OK), 0);
  CHECK_EQ(access("file", R_OK | W_OK), 0);
  CHECK_ERRNO(access("file", X_OK), EACCES);
  CHECK_ERRNO(access("missing", F_OK), ENOENT);
  CHECK_ERRNO(access("file", 99), EINVAL);
  CHECK_EQ(chown("file", getuid(), getgid()), 0);
  CHECK_EQ(chown("file", static_cast<uid_t>(-1), static_cast<gid_t>(-1)), 0);
  CHECK_ERRNO(chmod("missing", 0600), ENOENT);
  unlink("file");
  rmdir("dir");
}

CASE(unprivileged_user_is_refused) {
  if (getuid() != 0) SKIP("needs root to become somebody else");
  touch("secret", "secret");
  chmod("secret", 0600);
  chmod(".", 0755);
  CHECK(exited(run_child([] {
    REQUIRE(setgid(65534) == 0 && setuid(65534) == 0);
    CHECK_EQ(getuid(), 65534);
    CHECK_EQ(geteuid(), 65534);
    CHECK_ERRNO(open("secret", O_RDONLY), EACCES);
    CHECK_ERRNO(access("secret", R_OK), EACCES);
    CHECK_ERRNO(chmod("secret", 0666), EPERM);
    CHECK_ERRNO(kill(1, SIGTERM), EPERM);
    CHECK_ERRNO(setuid(0), EPERM);
  })));
  CHECK_EQ(getuid(), 0);  // the child's change is its own
  unlink("secret");
}

CASE(times_can_be_set) {
  touch("file");
  timespec times[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
  CHECK_EQ(utimensat(AT_FDCWD, "file", times, 0), 0);
  struct stat info = info_of("file");
  CHECK_EQ(info.st_atim.tv_sec, 1000000000);
  CHECK_EQ(info.st_mtim.tv_sec, 1100000000);
  CHECK_EQ(info.st_mtim.tv_nsec, 987654321);
  times[0].tv_nsec = UTIME_OMIT;
  times[1].tv_nsec = UTIME_NOW;
  CHECK_EQ(utimensat(AT_FDCWD, "file", times, 0), 0);
  info = info_of("file");
  CHECK_EQ(info.st_atim.tv_sec, 1000000000);
  CHECK(info.st_mtim.tv_sec > 1100000000);
  times[0].tv_nsec = 2000000000;
  CHECK_ERRNO(utimensat(AT_FDCWD, "file", times, 0), EINVAL);
  utimbuf old = {1, 2};
  CHECK_EQ(utime("file", &old), 0);
  CHECK_EQ(info_of("file").st_mtim.tv_sec, 2);
  timeval both[2] = {{3, 0}, {4, 0}};
  CHECK_EQ(utimes("file", both), 0);
  CHECK_EQ(info_of("file").st_mtim.tv_sec, 4);
  unlink("file");
}

CASE(extended_attributes) {
  touch("file");
  const char* name = "user.test";
  if (setxattr("file", name, "value", 5, 0) != 0) {
    name = "trusted.test";
    if (setxattr("file", name, "value", 5, 0) != 0) SKIP("no extended attributes here");
  }
  char text[64];
  CHECK_EQ(getxattr("file", name, text, sizeof text), 5);
  CHECK(memcmp(text, "value", 5) == 0);
  CHECK_EQ(getxattr("file", name, nullptr, 0), 5);
  CHECK_ERRNO(getxattr("file", name, text, 2), ERANGE);
  CHECK_ERRNO(getxattr("file", (std::string(name) + "-other").c_str(), text, 2), ENODATA);
  CHECK_ERRNO(setxattr("file", name, "x", 1, XATTR_CREATE), EEXIST);
  CHECK_EQ(setxattr("file", name, "new", 3, XATTR_REPLACE), 0);
  ssize_t length = listxattr("file", text, sizeof text);
  CHECK(length > 0 &&
        std::string(text, static_cast<size_t>(length)).find(name) != std::string::npos);
  CHECK_EQ(removexattr("file", name), 0);
  CHECK_ERRNO(removexattr("file", name), ENODATA);
  unlink("file");
}

CASE(working_directory_moves) {
  char start[4096], now[4096];
  REQUIRE(getcwd(start, sizeof start) != nullptr);
  REQUIRE(mkdir("deeper", 0700) == 0);
  CHECK_EQ(chdir("deeper"), 0);
  REQUIRE(getcwd(now, sizeof now) != nullptr);
  CHECK(std::string(now) == std::string(start) + "/deeper");
  touch("here");
  int directory = open("..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK_EQ(fchdir(directory), 0);
  REQUIRE(getcwd(now, sizeof now) != nullptr);
  CHECK(strcmp(now, start) == 0);
  CHECK(exists("deeper/here"));
  CHECK_ERRNO(chdir("missing"), ENOENT);
  CHECK_ERRNO(chdir("deeper/here"), ENOTDIR);
  CHECK(getcwd(now, 2) == nullptr && errno == ERANGE);
  std::thread([] { CHECK_EQ(chdir("deeper"), 0); }).join();
  CHECK(exists("here"));  // one directory for all threads
  CHECK_EQ(fchdir(directory), 0);
  close(directory);
  unlink("deeper/here");
  rmdir("deeper");
}

CASE(removed_working_directory) {
  CHECK(exited(run_child([] {
    char now[100];
    REQUIRE(mkdir("going", 0700) == 0 && chdir("going") == 0 && rmdir("../going") == 0);
    CHECK(syscall(SYS_getcwd, now, sizeof now) == -1 && errno == ENOENT);
    CHECK_ERRNO(open("x", O_CREAT | O_RDWR, 0600), ENOENT);
  })));
}

CASE(long_names) {
  std::string longest(255, 'n'), longer(256, 'n');
  touch(longest.c_str(), "x");
  CHECK(exists(longest.c_str()));
  unlink(longest.c_str());
  CHECK_ERRNO(open(longer.c_str(), O_RDWR | O_CREAT, 0600), ENAMETOOLONG);
  std::string path;
  while (path.size() < 4096) path += "./";
  CHECK_ERRNO(open(path.c_str(), O_RDONLY), ENAMETOOLONG);
}

CASE(special_files) {
  CHECK_EQ(mkfifo("fifo", 0600), 0);
  CHECK(S_ISFIFO(info_of("fifo").st_mode));
  int both = open("fifo", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  CHECK(both >= 0);
  CHECK_EQ(write(both, "x", 1), 1);
  close(both);
  CHECK_ERRNO(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
  pid_t child = start_child([] {
    int out = open("fifo", O_WRONLY | O_CLOEXEC);
    CHECK_EQ(write(out, "through", 7), 7);
  });
  int in = open("fifo", O_RDONLY | O_CLOEXEC);  // waits for the writer
  char text[10] = "";
  CHECK_EQ(read(in, text, 7), 7);
  CHECK(exited(status_of(child)));
  close(in);
  unlink("fifo");
  struct stat info = info_of("/dev/null");
  CHECK(S_ISCHR(info.st_mode));
  CHECK_EQ(info.st_rdev, makedev(1, 3));
  int null = open("/dev/null", O_RDWR | O_CLOEXEC), zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
  CHECK_EQ(read(null, text, 5), 0);
  CHECK_EQ(write(null, text, 5), 5);
  CHECK_EQ(read(zero, text, 5), 5);
  CHECK(all_are(text, 5, 0));
  int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (full != -1) CHECK_ERRNO(write(full, "x", 1), ENOSPC);
  close(full);
  close(null);
  close(zero);
}

CASE(library_walks_and_matches_names) {
  for (const char* name : {"tree", "tree/a", "tree/b"}) REQUIRE(mkdir(name, 0700) == 0);
  for (const char* name : {"tree/one.txt", "tree/a/two.txt", "tree/b/three.bin"}) touch(name);
  glob_t found = {};
  CHECK_EQ(glob("tree/*/*.txt", 0, nullptr, &found), 0);
  CHECK_EQ(found.gl_pathc, 1);
  globfree(&found);
  static int visited;
  visited = 0;
  CHECK_EQ(nftw(
               "tree",
               [](const char* name, const struct stat*, int, FTW*) {
                 ++visited;
                 return remove(name);
               },
               8, FTW_DEPTH | FTW_PHYS),
           0);
  CHECK_EQ(visited, 6);
  CHECK(!exists("tree"));
  char name[] = "temporary-XXXXXX";
  int file = mkstemp(name);
  CHECK(file != -1 && exists(name));
  close(file);
  unlink(name);
}

CHECK_MAIN
