// Calls that block while the process forks. What Linux writes when they return is the parent's: the
// child keeps the old bytes, in small buffers, which dbos-run copies, and in large ones, which
// Linux writes where they lie.
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "inflight_support.h"

namespace {

// The first is copied by dbos-run, the last is written where it lies.
std::vector<size_t> sizes_in(Place place) {
  if (place == Place::kOnePage) return {100, 1500};
  return {100, 20000};
}

template <typename Action>
void with_places(const Action& action) {
  with_places(kPlaces, action);
}

template <typename Action>
void with_buffers(const Action& action) {
  with_places([&](Place place) {
    for (const size_t size : sizes_in(place)) action(place, size);
  });
}

void send_all(int to, const std::string& text) {
  REQUIRE(write(to, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

// Where what goes with a buffer lies: one in 2 MiB is enough.
Place beside(Place place) {
  return place == Place::kLargePage ? Place::kAcrossPages : place;
}

// Three pieces of memory with one vector of all.
struct Pieces {
  Memory small, middle, large;
  iovec vectors[3];
  explicit Pieces(Place place)
      : small(beside(place), 100),
        middle(beside(place), 1500),
        large(place == Place::kOnePage ? Place::kAcrossPages : place, 20000),
        vectors{{small.at(), 100}, {middle.at(), 1500}, {large.at(), 20000}} {}

  static constexpr size_t kSize = 100 + 1500 + 20000;
  bool are_new(const std::string& text) const {
    return small.is_new(text.substr(0, 100)) && middle.is_new(text.substr(100, 1500)) &&
           large.is_new(text.substr(1600));
  }
};

template <typename Read>
void vectors_from_a_pipe(int call, const Read& read_into) {
  with_places([&](Place place) {
    Pieces pieces(place);
    Pipe pipe;
    const std::string text = text_of(Pieces::kSize);
    across_fork(
        {&pieces.small, &pieces.middle, &pieces.large}, {call},
        [&] { CHECK_EQ(read_into(pipe.in(), pieces.vectors), Pieces::kSize); },
        [&] { send_all(pipe.out(), text); });
    CHECK(pieces.are_new(text));
  });
}

}  // namespace

CASE(read_from_a_pipe) {
  with_buffers([](Place place, size_t size) {
    Memory memory(place, size);
    Pipe pipe;
    const std::string text = text_of(size);
    across_fork(
        {&memory}, {SYS_read, SYS_readv},
        [&] { CHECK_EQ(read(pipe.in(), memory.at(), size), size); },
        [&] { send_all(pipe.out(), text); });
    CHECK(memory.is_new(text));
  });
}

CASE(readv_from_a_pipe) {
  vectors_from_a_pipe(SYS_readv, [](int file, iovec* vectors) { return readv(file, vectors, 3); });
}

CASE(preadv2_at_the_current_place_of_a_pipe) {
  vectors_from_a_pipe(SYS_preadv2,
                      [](int file, iovec* vectors) { return preadv2(file, vectors, 3, -1, 0); });
}

CASE(recv_from_a_stream) {
  with_places([](Place place) {
    const size_t size = place == Place::kOnePage ? 1500 : 20000;
    Memory memory(place, size);
    SocketPair pair(SOCK_STREAM);
    const std::string text = text_of(size);
    across_fork(
        {&memory}, {SYS_recvfrom, SYS_recvmsg},
        [&] { CHECK_EQ(recv(pair.end[0], memory.at(), size, MSG_WAITALL), size); },
        [&] { send_all(pair.end[1], text); });
    CHECK(memory.is_new(text));
  });
}

CASE(recv_of_which_half_came_before_the_fork) {
  with_places([](Place place) {
    const size_t half = place == Place::kOnePage ? 1000 : 20000;
    Memory memory(place, 2 * half);
    SocketPair pair(SOCK_STREAM);
    const std::string text = text_of(2 * half);
    BlockedCall blocked({SYS_recvfrom, SYS_recvmsg}, [&] {
      CHECK_EQ(recv(pair.end[0], memory.at(), 2 * half, MSG_WAITALL), 2 * half);
    });
    send_all(pair.end[1], text.substr(0, half));
    while (!memory.is_new(text.substr(0, half))) sleep_ms(1);
    Onlooker child([&] { return memory.is_new(text.substr(0, half)); });
    send_all(pair.end[1], text.substr(half));
    blocked.join();
    CHECK(memory.is_new(text));
    child.look_again();
  });
}

// ---- Messages with names ----

namespace {

// Datagram sockets, each with a name that Linux has chosen.
struct NamedPair {
  int receiver = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un name = {};  // the sender's
  socklen_t length = sizeof name;

  NamedPair() {
    sockaddr_un other = {};
    other.sun_family = AF_UNIX;
    const auto* any = reinterpret_cast<const sockaddr*>(&other);
    REQUIRE(bind(sender, any, sizeof other.sun_family) == 0);
    REQUIRE(bind(receiver, any, sizeof other.sun_family) == 0);
    REQUIRE(getsockname(sender, reinterpret_cast<sockaddr*>(&name), &length) == 0);
    socklen_t other_length = sizeof other;
    auto* at = reinterpret_cast<sockaddr*>(&other);
    REQUIRE(getsockname(receiver, at, &other_length) == 0);
    REQUIRE(connect(sender, at, other_length) == 0);
  }
  NamedPair(const NamedPair&) = delete;
  NamedPair& operator=(const NamedPair&) = delete;
  ~NamedPair() {
    close(receiver);
    close(sender);
  }
  std::string text() const { return {reinterpret_cast<const char*>(&name), length}; }
};

// A msghdr and all that it refers to, each in memory of its own.
struct Message {
  Pieces pieces;
  Memory name, control, vectors, header;
  explicit Message(Place place)
      : pieces(place),
        name(beside(place), sizeof(sockaddr_un)),
        control(beside(place), CMSG_SPACE(sizeof(ucred))),
        vectors(beside(place), sizeof pieces.vectors),
        header(beside(place), sizeof(mmsghdr)) {
    vectors.put(&pieces.vectors, sizeof pieces.vectors);
    mmsghdr values = {};
    values.msg_hdr = {name.at(), sizeof(sockaddr_un), reinterpret_cast<iovec*>(vectors.at()),
                      3,         control.at(),        CMSG_SPACE(sizeof(ucred)),
                      0};
    header.put(values);
  }
  Memories all() const {
    return {&pieces.small, &pieces.middle, &pieces.large, &name, &control, &vectors, &header};
  }
  void check_arrived(const std::string& text, const NamedPair& pair) const {
    CHECK(pieces.are_new(text));
    CHECK(name.is_new(pair.text()));
    CHECK(vectors.is_old());
    CHECK(header.is_old_behind(sizeof(mmsghdr)));
    msghdr got = header.get<mmsghdr>().msg_hdr;
    CHECK_EQ(got.msg_namelen, pair.length);
    CHECK(got.msg_control == control.at() && got.msg_iovlen == 3);
    CHECK(control.is_old_behind(CMSG_SPACE(sizeof(ucred))));
    const cmsghdr* one = CMSG_FIRSTHDR(&got);
    REQUIRE(one != nullptr && one->cmsg_type == SCM_CREDENTIALS);
    ucred who = {};
    memcpy(&who, CMSG_DATA(one), sizeof who);
    CHECK_EQ(who.pid, getpid());
  }
};

void pass_credentials(int file) {
  const int on = 1;
  REQUIRE(setsockopt(file, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
}

}  // namespace

CASE(recvfrom_with_the_address_of_the_sender) {
  with_buffers([](Place place, size_t size) {
    NamedPair pair;
    Memory memory(place, size), name(place, sizeof(sockaddr_un)), length(place, sizeof(socklen_t));
    length.put(socklen_t{sizeof(sockaddr_un)});
    const std::string text = text_of(size);
    across_fork(
        {&memory, &name, &length}, {SYS_recvfrom, SYS_recvmsg},
        [&] {
          auto* from = reinterpret_cast<sockaddr*>(name.at());
          auto* bytes = reinterpret_cast<socklen_t*>(length.at());
          CHECK_EQ(recvfrom(pair.receiver, memory.at(), size, 0, from, bytes), size);
        },
        [&] { send_all(pair.sender, text); });
    CHECK(memory.is_new(text));
    CHECK(name.is_new(pair.text()));
    CHECK_EQ(length.get<socklen_t>(), pair.length);
  });
}

CASE(recvmsg_with_name_and_control_message) {
  with_places([](Place place) {
    NamedPair pair;
    pass_credentials(pair.receiver);
    Message message(place);
    const std::string text = text_of(Pieces::kSize);
    across_fork(
        message.all(), {SYS_recvmsg},
        [&] {
          auto* header = reinterpret_cast<msghdr*>(message.header.at());
          CHECK_EQ(recvmsg(pair.receiver, header, 0), Pieces::kSize);
        },
        [&] { send_all(pair.sender, text); });
    message.check_arrived(text, pair);
  });
}

CASE(recvmmsg_of_two_messages) {
  with_places([](Place place) {
    NamedPair pair;
    pass_credentials(pair.receiver);
    Message message[2] = {Message(place), Message(place)};
    Memory headers(place, 2 * sizeof(mmsghdr));
    for (size_t i = 0; i < 2; ++i) {
      const mmsghdr one = message[i].header.get<mmsghdr>();
      headers.put(&one, sizeof one, i * sizeof one);
    }
    Memories all = message[0].all();
    for (const Memory* one : message[1].all()) all.push_back(one);
    all.push_back(&headers);
    const std::string text[2] = {text_of(Pieces::kSize, 1), text_of(Pieces::kSize, 2)};
    across_fork(
        all, {SYS_recvmmsg},
        [&] {
          auto* at = reinterpret_cast<mmsghdr*>(headers.at());
          CHECK_EQ(recvmmsg(pair.receiver, at, 2, 0, nullptr), 2);
        },
        [&] {
          for (const std::string& one : text) send_all(pair.sender, one);
        });
    CHECK(headers.is_old_behind(2 * sizeof(mmsghdr)));
    for (size_t i = 0; i < 2; ++i) {
      mmsghdr got;
      memcpy(&got, headers.at(i * sizeof got), sizeof got);
      CHECK_EQ(got.msg_len, Pieces::kSize);
      message[i].header.put(got);
      message[i].check_arrived(text[i], pair);
    }
  });
}

CASE(accept_with_the_address_of_the_peer) {
  with_places([](Place place) {
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    auto* at = reinterpret_cast<sockaddr*>(&name);
    REQUIRE(bind(listener, at, sizeof name.sun_family) == 0 && listen(listener, 1) == 0);
    REQUIRE(bind(client, at, sizeof name.sun_family) == 0);
    Memory peer(place, sizeof name), length(place, sizeof(socklen_t));
    length.put(socklen_t{sizeof name});
    int accepted = -1;
    across_fork(
        {&peer, &length}, {SYS_accept, SYS_accept4},
        [&] {
          accepted = accept(listener, reinterpret_cast<sockaddr*>(peer.at()),
                            reinterpret_cast<socklen_t*>(length.at()));
        },
        [&] {
          socklen_t size = sizeof name;
          REQUIRE(getsockname(listener, at, &size) == 0 && connect(client, at, size) == 0);
        });
    CHECK(accepted != -1);
    socklen_t size = sizeof name;
    REQUIRE(getsockname(client, at, &size) == 0);
    CHECK(peer.is_new({reinterpret_cast<char*>(&name), size}));
    CHECK_EQ(length.get<socklen_t>(), size);
    for (const int file : {listener, client, accepted}) close(file);
  });
}

// ---- Waiting for events, processes, signals, messages ----

CASE(epoll_wait_with_room_for_many_events) {
  with_places([](Place place) {
    Pipe pipe;
    const int poller = epoll_create1(EPOLL_CLOEXEC);
    epoll_event wanted = {};
    wanted.events = EPOLLIN;
    wanted.data.u64 = 0x1122334455667788;
    REQUIRE(epoll_ctl(poller, EPOLL_CTL_ADD, pipe.in(), &wanted) == 0);
    Memory events(place, 100 * sizeof(epoll_event));
    across_fork(
        {&events}, {SYS_epoll_wait, SYS_epoll_pwait},
        [&] {
          auto* at = reinterpret_cast<epoll_event*>(events.at());
          CHECK_EQ(epoll_wait(poller, at, 100, -1), 1);
        },
        [&] { pipe.post(); });
    CHECK(events.is_new({reinterpret_cast<char*>(&wanted), sizeof wanted}));
    close(poller);
  });
}

CASE(poll_of_many_descriptors) {
  with_places([](Place place) {
    Pipe pipe;
    std::vector<pollfd> wanted(100, pollfd{-1, POLLIN, -1});
    wanted[70].fd = pipe.in();
    const size_t size = wanted.size() * sizeof wanted[0];
    Memory memory(place, size);
    memory.put(wanted.data(), size);
    across_fork(
        {&memory}, {SYS_poll, SYS_ppoll},
        [&] { CHECK_EQ(poll(reinterpret_cast<pollfd*>(memory.at()), 100, -1), 1); },
        [&] { pipe.post(); });
    for (pollfd& one : wanted) one.revents = one.fd == -1 ? short{0} : short{POLLIN};
    CHECK(memory.is_new({reinterpret_cast<char*>(wanted.data()), size}));
  });
}

CASE(select_of_two_descriptors) {
  with_places([](Place place) {
    Pipe pipe, other;
    fd_set wanted;
    FD_ZERO(&wanted);
    FD_SET(pipe.in(), &wanted);
    FD_SET(other.in(), &wanted);
    Memory memory(place, sizeof wanted);
    memory.put(wanted);
    const int count = std::max(pipe.in(), other.in()) + 1;
    across_fork(
        {&memory}, {SYS_select, SYS_pselect6},
        [&] { CHECK_EQ(syscall(SYS_select, count, memory.at(), nullptr, nullptr, nullptr), 1); },
        [&] { pipe.post(); });
    FD_CLR(other.in(), &wanted);
    CHECK(memory.is_new({reinterpret_cast<char*>(&wanted), sizeof wanted}));
  });
}

namespace {

// It ends with status 42.
pid_t start_child_until(Pipe& end) {
  return start_child([&] {
    end.close_write();
    end.take();
    _exit(42);
  });
}

}  // namespace

CASE(wait4_with_status_and_usage) {
  with_places([](Place place) {
    Memory status(place, sizeof(int)), usage(place, sizeof(rusage));
    Pipe end;
    const pid_t child = start_child_until(end);
    across_fork(
        {&status, &usage}, {SYS_wait4},
        [&] {
          auto* at = reinterpret_cast<int*>(status.at());
          CHECK_EQ(wait4(child, at, 0, reinterpret_cast<rusage*>(usage.at())), child);
        },
        [&] { end.post(); });
    CHECK(exited(status.get<int>(), 42));
    CHECK(!usage.is_old() && usage.is_old_behind(sizeof(rusage)));
  });
}

CASE(waitid_with_information_and_usage) {
  with_places([](Place place) {
    Memory information(place, sizeof(siginfo_t)), usage(place, sizeof(rusage));
    Pipe end;
    const pid_t child = start_child_until(end);
    across_fork(
        {&information, &usage}, {SYS_waitid},
        [&] {
          CHECK_EQ(syscall(SYS_waitid, P_PID, child, information.at(), WEXITED, usage.at()), 0);
        },
        [&] { end.post(); });
    const auto got = information.get<siginfo_t>();
    CHECK(got.si_pid == child && got.si_status == 42 && got.si_code == CLD_EXITED);
    CHECK(!usage.is_old() && usage.is_old_behind(sizeof(rusage)));
  });
}

CASE(rt_sigtimedwait_with_information) {
  const sigset_t set = set_of(SIGUSR1);
  REQUIRE(sigprocmask(SIG_BLOCK, &set, nullptr) == 0);
  with_places([&](Place place) {
    Memory information(place, sizeof(siginfo_t));
    across_fork(
        {&information}, {SYS_rt_sigtimedwait},
        [&] {
          CHECK_EQ(sigwaitinfo(&set, reinterpret_cast<siginfo_t*>(information.at())), SIGUSR1);
        },
        [] { kill(getpid(), SIGUSR1); });
    const auto got = information.get<siginfo_t>();
    CHECK(got.si_signo == SIGUSR1 && got.si_pid == getpid());
    CHECK(information.is_old_behind(sizeof(siginfo_t)));
  });
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

CASE(msgrcv_from_a_queue) {
  struct Text {
    long type;
    char bytes[1500];
  };
  with_places([](Place place) {
    const int queue = msgget(IPC_PRIVATE, 0600);
    REQUIRE(queue != -1);
    Memory memory(place, sizeof(Text));
    Text text = {3, {}};
    text_of(sizeof text.bytes).copy(text.bytes, sizeof text.bytes);
    across_fork(
        {&memory}, {SYS_msgrcv},
        [&] { CHECK_EQ(msgrcv(queue, memory.at(), sizeof text.bytes, 0, 0), sizeof text.bytes); },
        [&] { CHECK_EQ(msgsnd(queue, &text, sizeof text.bytes, 0), 0); });
    CHECK(memory.is_new(std::string(reinterpret_cast<char*>(&text), 8 + sizeof text.bytes)));
    msgctl(queue, IPC_RMID, nullptr);
  });
}

CHECK_MAIN
