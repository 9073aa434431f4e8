// Pipes, and what moves data inside the kernel: limits, non-blocking ends, atomic writes, sendfile,
// splice, tee and vmsplice.
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <thread>

#include "support.h"

CASE(pipe_ends_and_flags) {
  int end[2];
  CHECK_EQ(pipe2(end, O_CLOEXEC | O_NONBLOCK), 0);
  CHECK_EQ(fcntl(end[0], F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(end[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_EQ(fcntl(end[1], F_GETFL) & O_ACCMODE, O_WRONLY);
  char byte = 0;
  CHECK_ERRNO(read(end[0], &byte, 1), EAGAIN);
  CHECK_ERRNO(write(end[0], "x", 1), EBADF);
  CHECK_ERRNO(read(end[1], &byte, 1), EBADF);
  CHECK_ERRNO(lseek(end[0], 0, SEEK_SET), ESPIPE);
  CHECK_ERRNO(pread(end[0], &byte, 1, 0), ESPIPE);
  CHECK_ERRNO(pipe2(end, 0x1234), EINVAL);
  CHECK_ERRNO(syscall(SYS_pipe2, 8, 0), EFAULT);
  close(end[0]);
  close(end[1]);
}

CASE(pipe_fills_and_empties) {
  Pipe pipe;
  REQUIRE(fcntl(pipe.out(), F_SETFL, O_NONBLOCK) == 0);
  REQUIRE(fcntl(pipe.out(), F_SETPIPE_SZ, 65536) == 65536);
  std::string block(4096, 'p');
  int blocks = 0;
  while (write(pipe.out(), block.data(), block.size()) == 4096) ++blocks;
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(blocks, 16);
  int waiting = 0;
  CHECK_EQ(ioctl(pipe.in(), FIONREAD, &waiting), 0);
  CHECK_EQ(waiting, 65536);
  std::string all(70000, 0);
  CHECK_EQ(read(pipe.in(), all.data(), all.size()), 65536);
  pipe.close_write();
  CHECK_EQ(read(pipe.in(), all.data(), 1), 0);
}

CASE(small_pipe_writes_are_atomic) {
  Pipe pipe;
  std::vector<std::thread> writers;
  for (char letter : {'a', 'b', 'c'}) {
    writers.emplace_back([&, letter] {
      std::string block(100, letter);
      for (int i = 0; i < 200; ++i) REQUIRE(write(pipe.out(), block.data(), block.size()) == 100);
    });
  }
  int counts[3] = {};
  for (int i = 0; i < 600; ++i) {
    char block[100];
    for (size_t got = 0; got < 100;) {
      ssize_t n = read(pipe.in(), block + got, 100 - got);
      REQUIRE(n > 0);
      got += static_cast<size_t>(n);
    }
    for (char one : block) REQUIRE(one == block[0]);
    ++counts[block[0] - 'a'];
  }
  for (auto& writer : writers) writer.join();
  for (int count : counts) CHECK_EQ(count, 200);
}

CASE(sendfile_copies_file_to_socket_and_file) {
  int source = memfd_create("source", MFD_CLOEXEC), target = memfd_create("target", MFD_CLOEXEC);
  std::string text(100000, 's');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 101);
  REQUIRE(write(source, text.data(), text.size()) == 100000);
  off_t position = 1000;
  CHECK_EQ(sendfile(target, source, &position, 50000), 50000);
  CHECK_EQ(position, 51000);
  std::string copy(50000, 0);
  CHECK_EQ(pread(target, copy.data(), copy.size(), 0), 50000);
  CHECK(copy == text.substr(1000, 50000));
  position = 200000;
  CHECK_EQ(sendfile(target, source, &position, 10), 0);
  SocketPair pair;
  position = 0;
  CHECK_EQ(sendfile(pair.end[0], source, &position, 5000), 5000);
  CHECK_EQ(recv(pair.end[1], copy.data(), 5000, MSG_WAITALL), 5000);
  CHECK(memcmp(copy.data(), text.data(), 5000) == 0);
  CHECK_ERRNO(sendfile(target, pair.end[1], nullptr, 10), EINVAL);
  close(source);
  close(target);
}

CASE(splice_and_tee) {
  Pipe first, second;
  int file = memfd_create("spliced", MFD_CLOEXEC);
  REQUIRE(write(file, "0123456789abcdef", 16) == 16);
  off64_t position = 4;
  CHECK_EQ(splice(file, &position, first.out(), nullptr, 8, 0), 8);
  CHECK_EQ(position, 12);
  CHECK_EQ(tee(first.in(), second.out(), 5, 0), 5);
  char text[16] = "";
  CHECK_EQ(read(second.in(), text, sizeof text), 5);
  CHECK(memcmp(text, "45678", 5) == 0);
  CHECK_EQ(splice(first.in(), nullptr, second.out(), nullptr, 8, 0), 8);
  CHECK_EQ(read(second.in(), text, sizeof text), 8);
  CHECK(memcmp(text, "456789ab", 8) == 0);
  char gift[] = "by vmsplice";
  iovec vec = {gift, 11};
  CHECK_EQ(vmsplice(first.out(), &vec, 1, 0), 11);
  CHECK_EQ(read(first.in(), text, sizeof text), 11);
  CHECK(memcmp(text, gift, 11) == 0);
  CHECK_ERRNO(splice(file, nullptr, file, nullptr, 8, 0), EINVAL);
  close(file);
}

CHECK_MAIN
