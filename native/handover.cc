/*
 * The addon: the system calls that Node does not offer, one function for each; packages/core/src/platform/native.ts has their types.
 *
 * It keeps no state. An argument of the wrong type is a TypeError, and no argument ends the process. A failed call answers its negative
 * errno. Every descriptor that it makes has FD_CLOEXEC. Once descriptors have arrived, nothing can fail. Lists of descriptors cross as
 * Int32Arrays, because one element at a time costs more than the system calls.
 * It does not retry (beyond EINTR), log, wait (but for pollReadable, lock and 0.1 ms in accept) or know what a message means. Linux and
 * macOS; no exceptions, Node-API 8.
 */

#include <napi.h>
#include <uv.h>

#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/filter.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <atomic>
#include <charconv>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using Napi::CallbackInfo;
using Napi::Value;

constexpr size_t kMaxFds = 252;  // musl's limit; the kernel's is 253 (SCM_MAX_FD)
// Room for the kernel's 253, and for the credentials that SO_PASSCRED puts before them.
constexpr size_t kReceiveRoom = CMSG_SPACE(sizeof(int) * 253) + 64;

#ifdef __APPLE__
constexpr int kCloexec = 0;
constexpr int kSendFlags = MSG_DONTWAIT;
constexpr int kReceiveFlags = MSG_DONTWAIT;
void SetCloexec(int fd) { fcntl(fd, F_SETFD, FD_CLOEXEC); }
void SetNoSigpipe(int fd) {
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
}
#else
constexpr int kCloexec = SOCK_CLOEXEC;
constexpr int kSendFlags = MSG_DONTWAIT | MSG_NOSIGNAL;
constexpr int kReceiveFlags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
void SetCloexec(int) {}
void SetNoSigpipe(int) {}
#endif

/** Makes a call again while a signal interrupts it; -1 becomes the negative errno. */
template <typename Call>
auto Try(Call call) {
  auto answer = call();
  while (answer == -1 && errno == EINTR) answer = call();
  return answer == -1 ? -static_cast<decltype(answer)>(errno) : answer;
}

/** A descriptor that is closed at the end of the scope unless it is released. */
struct Fd {
  int value;
  explicit Fd(int fd) : value(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (value >= 0) close(value);
  }
  int Release() { return std::exchange(value, -1); }
};

// Arguments. Each function answers false with an exception pending.

bool Wrong(const CallbackInfo& info, size_t index, const char* expected) {
  std::string message = "argument " + std::to_string(index + 1) + " must be " + expected;
  napi_throw_type_error(info.Env(), "ERR_INVALID_ARG_TYPE", message.c_str());
  return false;
}

bool ReadInt(const CallbackInfo& info, size_t index, int* result) {
  double number;
  if (napi_get_value_double(info.Env(), info[index], &number) == napi_ok && number >= INT_MIN && number <= INT_MAX) {
    *result = static_cast<int>(number);
    if (*result == number) return true;
  }
  return Wrong(info, index, "a 32-bit integer");
}

bool ReadArray(const CallbackInfo& info, size_t index, napi_typedarray_type wanted, void** data, size_t* length) {
  napi_env env = info.Env();
  bool typed = false;
  napi_typedarray_type type = napi_float64_array;
  return napi_is_typedarray(env, info[index], &typed) == napi_ok && typed &&
         napi_get_typedarray_info(env, info[index], &type, length, data, nullptr, nullptr) == napi_ok && type == wanted;
}

bool ReadBytes(const CallbackInfo& info, size_t index, iovec* result) {
  return ReadArray(info, index, napi_uint8_array, &result->iov_base, &result->iov_len) || Wrong(info, index, "a Uint8Array");
}

/** A list and, as the next argument, how many of it count. */
struct Fds {
  int* list = nullptr;
  size_t room = 0;
  int count = 0;
  bool fits(size_t most) const { return count >= 0 && static_cast<size_t>(count) <= most && static_cast<size_t>(count) <= room; }
};

bool ReadList(const CallbackInfo& info, size_t index, Fds* result) {
  void* list = nullptr;
  if (!ReadArray(info, index, napi_int32_array, &list, &result->room)) return Wrong(info, index, "an Int32Array");
  result->list = static_cast<int*>(list);
  return true;
}

bool ReadFds(const CallbackInfo& info, size_t index, Fds* result) {
  return ReadList(info, index, result) && ReadInt(info, index + 1, &result->count);
}

struct UnixAddress {
  sockaddr_un address{};
  socklen_t length = 0;
  int error = 0;
};

bool ReadPath(const CallbackInfo& info, size_t index, UnixAddress* result) {
  char path[sizeof(sockaddr_un::sun_path) + 8];  // what does not fit is seen as longer than sun_path
  size_t length = 0;
  if (napi_get_value_string_utf8(info.Env(), info[index], path, sizeof path, &length) != napi_ok) {
    return Wrong(info, index, "a string");
  }
  if (length == 0 || memchr(path, 0, length) != nullptr) {
    result->error = -EINVAL;
  } else if (length >= sizeof(sockaddr_un::sun_path)) {
    result->error = -ENAMETOOLONG;
  } else {
    result->address.sun_family = AF_UNIX;
    memcpy(result->address.sun_path, path, length);
    result->length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length + 1);
  }
  return true;
}

Value Answer(const CallbackInfo& info, ssize_t value) { return Napi::Number::New(info.Env(), static_cast<double>(value)); }

// Messages.

/** On any other socket the kernel would take the bytes and silently drop the descriptors. */
int CheckUnix(int fd) {
  sockaddr_storage name;
  socklen_t length = sizeof name;
  int error = Try([&] { return getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length); });
  return error < 0 || name.ss_family == AF_UNIX ? error : -EPROTOTYPE;
}

ssize_t Send(int fd, const UnixAddress* to, iovec data, const Fds& fds, int flags) {
  if (!fds.fits(kMaxFds)) return -EINVAL;
  size_t bytes = sizeof(int) * static_cast<size_t>(fds.count);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFds)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (to != nullptr) {
    message.msg_name = const_cast<sockaddr_un*>(&to->address);
    message.msg_namelen = to->length;
  }
  if (bytes > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(part), fds.list, bytes);
  }
  SetNoSigpipe(fd);
  return Try([&] { return sendmsg(fd, &message, flags); });
}

Value SendMessage(const CallbackInfo& info) {
  int fd = -1;
  iovec data{};
  Fds fds;
  if (!ReadInt(info, 0, &fd) || !ReadBytes(info, 1, &data) || !ReadFds(info, 2, &fds)) return {};
  int error = CheckUnix(fd);
  return Answer(info, error < 0 ? error : Send(fd, nullptr, data, fds, kSendFlags));
}

/** The list gets the number of descriptors, 1 where some were dropped (MSG_CTRUNC) and else 0, and the descriptors. */
Value ReceiveMessage(const CallbackInfo& info) {
  int fd = -1;
  iovec into{};
  Fds result;
  if (!ReadInt(info, 0, &fd) || !ReadBytes(info, 1, &into) || !ReadList(info, 2, &result)) return {};
  // An answer of no bytes would look like an end of file, and everything that can arrive needs room.
  if (into.iov_len == 0 || result.room < 2 + kReceiveRoom / sizeof(int)) return Answer(info, -EINVAL);
  int error = CheckUnix(fd);
  if (error < 0) return Answer(info, error);

  alignas(cmsghdr) char control[kReceiveRoom];
  msghdr message{};
  message.msg_iov = &into;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t bytes = Try([&] { return recvmsg(fd, &message, kReceiveFlags); });
  if (bytes < 0) return Answer(info, bytes);

  int* fds = result.list + 2;
  const char* end = control + message.msg_controllen;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    // macOS leaves the whole length in a header whose descriptors were cut off.
    size_t length = part->cmsg_len - CMSG_LEN(0), room = end - reinterpret_cast<char*>(CMSG_DATA(part));
    size_t arrived = (length < room ? length : room) / sizeof(int);
    memcpy(fds, CMSG_DATA(part), arrived * sizeof(int));
    fds += arrived;
  }
  result.list[0] = static_cast<int>(fds - result.list - 2);
  result.list[1] = (message.msg_flags & MSG_CTRUNC) != 0;
  for (int* each = result.list + 2; each < fds; each++) SetCloexec(*each);
  return Answer(info, bytes);
}

Value SendDatagram(const CallbackInfo& info) {
  UnixAddress to;
  iovec data{};
  Fds fds;
  if (!ReadPath(info, 0, &to) || !ReadBytes(info, 1, &data) || !ReadFds(info, 2, &fds)) return {};
  if (to.error != 0) return Answer(info, to.error);
  if (to.address.sun_path[0] == '@') {  // the abstract namespace: a NUL in front and none at the end, unix(7)
    to.address.sun_path[0] = 0;
    to.length--;
  }
  Fd fd(Try([] { return socket(AF_UNIX, SOCK_DGRAM | kCloexec, 0); }));
  if (fd.value < 0) return Answer(info, fd.value);
  SetCloexec(fd.value);
  timeval most{1, 0};
  setsockopt(fd.value, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
  return Answer(info, Send(fd.value, &to, data, fds, kSendFlags & ~MSG_DONTWAIT));
}

// Waiting.

Value PollReadable(const CallbackInfo& info) {
  int fd = -1, timeout = 0;
  if (!ReadInt(info, 0, &fd) || !ReadInt(info, 1, &timeout)) return {};
  constexpr uint64_t kNanoseconds = 1000000;
  if (fd < 0) return Answer(info, -EBADF);  // poll would ignore it, and wait
  uint64_t start = uv_hrtime();
  pollfd target{fd, POLLIN, 0};
  int ready = Try([&] {  // a call that is made again has only the rest of the time
    uint64_t passed = (uv_hrtime() - start) / kNanoseconds;
    int rest = timeout < 0 ? -1 : passed < static_cast<uint64_t>(timeout) ? timeout - static_cast<int>(passed) : 0;
    return poll(&target, 1, rest);
  });
  if (ready > 0 && (target.revents & POLLNVAL) != 0) return Answer(info, -EBADF);
  return Answer(info, ready);
}

#ifdef __linux__
Value Epoll(const CallbackInfo& info) {
  return Answer(info, Try([] { return epoll_create1(EPOLL_CLOEXEC); }));
}

/** Those that could not be added come to the front. Each has one event. */
Value EpollAdd(const CallbackInfo& info) {
  int epoll = -1;
  Fds fds;
  if (!ReadInt(info, 0, &epoll) || !ReadFds(info, 1, &fds)) return {};
  if (!fds.fits(kMaxFds)) return Answer(info, -EINVAL);
  int failed = 0;
  for (int at = 0; at < fds.count; at++) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
    event.data.fd = fds.list[at];
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds.list[at], &event) < 0) fds.list[failed++] = fds.list[at];
  }
  return Answer(info, failed);
}

Value EpollReady(const CallbackInfo& info) {
  constexpr int kEvents = 32;
  int epoll = -1;
  Fds result;
  if (!ReadInt(info, 0, &epoll) || !ReadList(info, 1, &result)) return {};
  if (result.room < kEvents) return Answer(info, -EINVAL);
  epoll_event events[kEvents];
  int ready = Try([&] { return epoll_wait(epoll, events, kEvents, 0); });
  for (int at = 0; at < ready; at++) result.list[at] = events[at].data.fd;
  return Answer(info, ready);
}
#endif

/**
 * One wait. It owns a duplicate of the descriptor, because libuv aborts the process when a watched descriptor is closed
 * before the loop comes to it. It lives until libuv has closed the handle and JavaScript has dropped the cancel function.
 */
struct Watch {
  napi_env env;
  int fd = -1;
  uv_poll_t poll;
  Napi::FunctionReference callback;
  napi_async_cleanup_hook_handle hook = nullptr;  // an async one: the environment waits until the handle is closed
  std::shared_ptr<Watch> self;                    // libuv's share

  void End() {
    uv_handle_t* handle = reinterpret_cast<uv_handle_t*>(&poll);
    if (self == nullptr || uv_is_closing(handle)) return;
    uv_close(handle, [](uv_handle_t* closed) {
      std::shared_ptr<Watch> watch = std::move(static_cast<Watch*>(closed->data)->self);
      if (watch->hook != nullptr) napi_remove_async_cleanup_hook(watch->hook);
    });
    close(fd);
    callback.Reset();
  }

  static void OnReady(uv_poll_t* poll, int status, int) {
    Watch* watch = static_cast<Watch*>(poll->data);
    napi_env env = watch->env;
    Napi::HandleScope scope(env);
    napi_value function = watch->callback.Value(), receiver, argument, exception;
    watch->End();
    if (napi_get_global(env, &receiver) != napi_ok || napi_create_int32(env, status, &argument) != napi_ok) return;
    if (napi_make_callback(env, nullptr, receiver, function, 1, &argument, nullptr) != napi_pending_exception) return;
    // At the end of a worker there is a pending exception and none to get.
    if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
  }
};

Value WatchOnce(const CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = -1;
  if (!ReadInt(info, 0, &fd)) return {};
  char event[sizeof "readable" + 1];  // one more, so that a longer text is not cut to a valid one
  size_t length = 0;
  bool text = napi_get_value_string_utf8(env, info[1], event, sizeof event, &length) == napi_ok;
  if (!text || (strcmp(event, "readable") != 0 && strcmp(event, "writable") != 0)) {
    Wrong(info, 1, "'readable' or 'writable'");
    return {};
  }
  if (!info[2].IsFunction()) {
    Wrong(info, 2, "a function");
    return {};
  }
  uv_loop_t* loop;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return Answer(info, -ENOSYS);

  Fd own(Try([&] { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }));
  if (own.value < 0) return Answer(info, own.value);
  auto watch = std::make_shared<Watch>();
  int flags = fcntl(own.value, F_GETFL);
  int error = uv_poll_init(loop, &watch->poll, own.value);
  if (error != 0) return Answer(info, error);
  fcntl(own.value, F_SETFL, flags);  // uv_poll_init sets O_NONBLOCK, which every process with the socket would see

  watch->env = env;
  watch->fd = own.Release();
  watch->poll.data = watch.get();
  watch->self = watch;
  watch->callback = Napi::Persistent(info[2].As<Napi::Function>());
  auto end = [](napi_async_cleanup_hook_handle, void* data) { static_cast<Watch*>(data)->End(); };
  bool hooked = napi_add_async_cleanup_hook(env, end, watch.get(), &watch->hook) == napi_ok;
  error = hooked ? uv_poll_start(&watch->poll, event[0] == 'r' ? UV_READABLE : UV_WRITABLE, Watch::OnReady) : -ENOSYS;
  bool keeps_alive = true;
  if (napi_get_value_bool(env, info[3], &keeps_alive) == napi_ok && !keeps_alive) uv_unref(reinterpret_cast<uv_handle_t*>(&watch->poll));
  if (error == 0) {
    Napi::Function cancel = Napi::Function::New(env, [watch](const CallbackInfo&) { watch->End(); });
    if (!cancel.IsEmpty()) return cancel;
  }
  watch->End();
  return error == 0 ? Value() : Answer(info, error);
}

// Descriptors and sockets.

Value Duplicate(const CallbackInfo& info) {
  int fd = -1;
  if (!ReadInt(info, 0, &fd)) return {};
  return Answer(info, Try([&] { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }));
}

/** Lets the kernel drop each SYN for `listening`, which its client sends again a second later, or no longer. socket(7), SO_ATTACH_FILTER */
bool DropSyns(int listening, bool drops) {
#ifdef __linux__
  // The filter sees the TCP header: byte 13 has the flags, 2 is SYN.
  sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 2, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
    BPF_STMT(BPF_RET | BPF_K, 0xffffffff)
  };
  sock_fprog program = {sizeof code / sizeof code[0], code};
  return setsockopt(listening, SOL_SOCKET, drops ? SO_ATTACH_FILTER : SO_DETACH_FILTER, &program, sizeof program) == 0;
#else
  return false;
#endif
}

/** Accepts what came since the queue was found empty, or closes `listening`. The last close(2) of a socket resets what is queued. */
int AcceptOrClose(int listening) {
  sockaddr_storage own = {};
  socklen_t size = sizeof own;
  bool is_unix = getsockname(listening, reinterpret_cast<sockaddr*>(&own), &size) != 0 || own.ss_family == AF_UNIX;
  bool dropping = !is_unix && DropSyns(listening, true);
  // A handshake on this machine that had begun takes a few microseconds.
  if (dropping) usleep(100);
  int fd = Try([&] { return accept(listening, nullptr, nullptr); });
  // Another process may go on accepting from it.
  if (dropping) DropSyns(listening, false);
  if (fd < 0) close(listening);
  return fd;
}

/**
 * One accept(2). It never waits: O_NONBLOCK is set first, as libuv has it on every socket that listens. With `closes` it closes `listening`
 * where it has nothing to answer.
 */
Value Accept(const CallbackInfo& info) {
  int listening = -1;
  if (!ReadInt(info, 0, &listening)) return {};
  bool closes = false;
  napi_get_value_bool(info.Env(), info[1], &closes);
  int flags = Try([&] { return fcntl(listening, F_GETFL); });
  if (flags < 0) return Answer(info, flags);
  if ((flags & O_NONBLOCK) == 0) {
    flags = Try([&] { return fcntl(listening, F_SETFL, flags | O_NONBLOCK); });
    if (flags < 0) return Answer(info, flags);
  }
  int fd = Try([&] { return accept(listening, nullptr, nullptr); });
  if (fd < 0 && closes) fd = AcceptOrClose(listening);
  if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
  return Answer(info, fd);
}

/** Puts those that could not be closed at the front of the list; answers their number. */
Value Close(const CallbackInfo& info) {
  Fds fds;
  if (!ReadFds(info, 0, &fds)) return {};
  if (!fds.fits(fds.room)) return Answer(info, -EINVAL);
  int failed = 0;
  for (int at = 0; at < fds.count; at++) {
    // Not again after EINTR: on Linux it is closed by then, close(2).
    if (close(fds.list[at]) != 0 && errno != EINTR) fds.list[failed++] = fds.list[at];
  }
  return Answer(info, failed);
}

Value DuplicateTo(const CallbackInfo& info) {
  int from = -1, to = -1;
  if (!ReadInt(info, 0, &from) || !ReadInt(info, 1, &to)) return {};
  return Answer(info, Try([&] { return dup2(from, to); }));
}

Value CloseOnExec(const CallbackInfo& info) {
  int fd = -1;
  if (!ReadInt(info, 0, &fd)) return {};
  return Answer(info, Try([&] { return fcntl(fd, F_SETFD, FD_CLOEXEC); }));
}

Value Lock(const CallbackInfo& info) {
  int fd = -1;
  if (!ReadInt(info, 0, &fd)) return {};
  return Answer(info, Try([&] { return flock(fd, LOCK_EX | LOCK_NB); }));
}

/** RLIMIT_NOFILE, the soft limit. As a double, "unlimited" is close enough. */
Value OpenFilesLimit(const CallbackInfo& info) {
  rlimit limit{};
  int error = Try([&] { return getrlimit(RLIMIT_NOFILE, &limit); });
  return error < 0 ? Answer(info, error) : Napi::Number::New(info.Env(), static_cast<double>(limit.rlim_cur));
}

template <typename Make>
Value Pair(const CallbackInfo& info, Make make) {
  Napi::Env env = info.Env();
  int pair[2];
  int error = Try([&] { return make(pair); });
  if (error < 0) return Answer(info, error);
  Fd first(pair[0]), second(pair[1]);
  Napi::Array result = Napi::Array::New(env, 2);
  for (uint32_t at = 0; at < 2; at++) {
    SetCloexec(pair[at]);
    if (result.Set(at, Napi::Number::New(env, pair[at])).IsNothing()) return {};
  }
  first.Release();
  second.Release();
  return result;
}

Value SocketPair(const CallbackInfo& info) {
  return Pair(info, [](int* pair) { return socketpair(AF_UNIX, SOCK_STREAM | kCloexec, 0, pair); });
}

Value Pipe(const CallbackInfo& info) {
#ifdef __linux__
  return Pair(info, [](int* pair) { return pipe2(pair, O_CLOEXEC); });
#else
  return Pair(info, [](int* pair) { return pipe(pair); });
#endif
}

Value ListenUnix(const CallbackInfo& info) {
  UnixAddress at;
  int backlog = 0;
  if (!ReadPath(info, 0, &at) || !ReadInt(info, 1, &backlog)) return {};
  if (at.error != 0) return Answer(info, at.error);
  Fd fd(Try([] { return socket(AF_UNIX, SOCK_STREAM | kCloexec, 0); }));
  if (fd.value < 0) return Answer(info, fd.value);
  SetCloexec(fd.value);
  int error = Try([&] { return bind(fd.value, reinterpret_cast<sockaddr*>(&at.address), at.length); });
  // A negative backlog: bound alone, so that connects are refused.
  if (error == 0 && backlog >= 0) error = Try([&] { return listen(fd.value, backlog); });
  return Answer(info, error < 0 ? error : fd.Release());
}

Value ConnectUnix(const CallbackInfo& info) {
  UnixAddress to;
  if (!ReadPath(info, 0, &to)) return {};
  if (to.error != 0) return Answer(info, to.error);
  Fd fd(Try([] { return socket(AF_UNIX, SOCK_STREAM | kCloexec, 0); }));
  if (fd.value < 0) return Answer(info, fd.value);
  SetCloexec(fd.value);
  // Connected without blocking, so that a listener whose queue is full is an -EAGAIN and not a stopped event loop.
  int flags = fcntl(fd.value, F_GETFL);
  fcntl(fd.value, F_SETFL, flags | O_NONBLOCK);
  int error = Try([&] { return connect(fd.value, reinterpret_cast<sockaddr*>(&to.address), to.length); });
  fcntl(fd.value, F_SETFL, flags);
  return Answer(info, error < 0 ? error : fd.Release());
}

Value PeerCredentials(const CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = -1;
  if (!ReadInt(info, 0, &fd)) return {};
  pid_t pid = 0;
  uid_t uid;
  gid_t gid;
#ifdef __APPLE__
  int error = Try([&] { return getpeereid(fd, &uid, &gid); });
  socklen_t length = sizeof pid;
  if (error == 0 && getsockopt(fd, SOL_LOCAL, LOCAL_PEERPID, &pid, &length) != 0) pid = 0;
#else
  ucred credentials{};
  socklen_t length = sizeof credentials;
  int error = Try([&] { return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length); });
  pid = credentials.pid;
  uid = credentials.uid;
  gid = credentials.gid;
#endif
  if (error < 0) return Answer(info, error);
  Napi::Object result = Napi::Object::New(env);
  result.Set("pid", Napi::Number::New(env, pid));
  result.Set("uid", Napi::Number::New(env, uid));
  result.Set("gid", Napi::Number::New(env, gid));
  return result;
}

int Option(int fd, int level, int name, int* value) {
  socklen_t length = sizeof *value;
  return Try([&] { return getsockopt(fd, level, name, value, &length); });
}

/** The backlog that listen(2) left: tcp_get_info() puts sk_max_ack_backlog into tcpi_sacked of a listening socket. */
int Backlog([[maybe_unused]] int fd) {
#ifdef __linux__
  tcp_info about{};
  socklen_t length = sizeof about;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &about, &length) == 0) return static_cast<int>(about.tcpi_sacked);
#endif
  return 0;
}

Value Describe(const CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = -1, type = 0, listening = 0, ipv6Only = 0, port = 0, backlog = 0;
  if (!ReadInt(info, 0, &fd)) return {};
  int error = Option(fd, SOL_SOCKET, SO_TYPE, &type);
  if (error < 0) return Answer(info, error);
  if (Option(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening) < 0) listening = 0;

  union {
    sockaddr_storage storage;
    sockaddr any;
    sockaddr_in inet;
    sockaddr_in6 inet6;
    sockaddr_un local;
  } name{};
  socklen_t length = sizeof name;
  error = Try([&] { return getsockname(fd, &name.any, &length); });
  if (error < 0) return Answer(info, error);

  const char* family = "other";
  char numeric[INET6_ADDRSTRLEN] = "";
  std::string address;
  if (name.any.sa_family == AF_INET) {
    family = "inet";
    address = inet_ntop(AF_INET, &name.inet.sin_addr, numeric, sizeof numeric);
    port = ntohs(name.inet.sin_port);
  } else if (name.any.sa_family == AF_INET6) {
    family = "inet6";
    address = inet_ntop(AF_INET6, &name.inet6.sin6_addr, numeric, sizeof numeric);
    port = ntohs(name.inet6.sin6_port);
    if (Option(fd, IPPROTO_IPV6, IPV6_V6ONLY, &ipv6Only) < 0) ipv6Only = 0;
  } else if (name.any.sa_family == AF_UNIX) {
    family = "unix";
    size_t size = length > offsetof(sockaddr_un, sun_path) ? length - offsetof(sockaddr_un, sun_path) : 0;
    if (size > sizeof name.local.sun_path) size = sizeof name.local.sun_path;
    // A path ends at its NUL, if it has one; an abstract name begins with one and is as long as the kernel says.
    bool abstract = size > 1 && name.local.sun_path[0] == 0 && name.local.sun_path[1] != 0;
    address.assign(name.local.sun_path, abstract ? size : strnlen(name.local.sun_path, size));
  }
  if (listening != 0 && type == SOCK_STREAM && name.any.sa_family != AF_UNIX) backlog = Backlog(fd);

  Napi::Object result = Napi::Object::New(env);
  result.Set("family", Napi::String::New(env, family));
  result.Set("type", Napi::String::New(env, type == SOCK_STREAM      ? "stream"
                                            : type == SOCK_DGRAM     ? "dgram"
                                            : type == SOCK_SEQPACKET ? "seqpacket"
                                                                     : "other"));
  result.Set("listening", Napi::Boolean::New(env, listening != 0));
  result.Set("address", Napi::String::New(env, address));
  result.Set("port", Napi::Number::New(env, port));
  result.Set("ipv6Only", Napi::Boolean::New(env, ipv6Only != 0));
  result.Set("backlog", Napi::Number::New(env, backlog));
  return result;
}

// SO_REUSEPORT groups.

Value SetReusePort(const CallbackInfo& info) {
  int fd = -1, on = 1;
  if (!ReadInt(info, 0, &fd)) return {};
  return Answer(info, Try([&] { return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on); }));
}

/** A numeric IP address, without a scope, with this port. */
bool AddressOf(const char* text, in_port_t port, sockaddr_storage* name, socklen_t* size) {
  auto* four = reinterpret_cast<sockaddr_in*>(name);
  auto* six = reinterpret_cast<sockaddr_in6*>(name);
  *name = {};
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = port;
    *size = sizeof *four;
  } else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = port;
    *size = sizeof *six;
  } else {
    return false;
  }
  return true;
}

/** Bound where `fd` is bound (the address comes from the kernel, so a scope is part of it), or at its port on another address. */
Value BindBeside(const CallbackInfo& info) {
  int beside = -1, type = 0, protocol = 0, ipv6Only = 0, on = 1;
  char address[INET6_ADDRSTRLEN + 1];
  size_t size = 0;
  bool elsewhere = info.Length() > 1;
  if (!ReadInt(info, 0, &beside) || (elsewhere && !ReadInt(info, 2, &ipv6Only))) return {};
  if (elsewhere && napi_get_value_string_utf8(info.Env(), info[1], address, sizeof address, &size) != napi_ok) {
    Wrong(info, 1, "a string");
    return {};
  }
  int error = Option(beside, SOL_SOCKET, SO_TYPE, &type);
  if (error < 0) return Answer(info, error);
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  error = Try([&] { return getsockname(beside, reinterpret_cast<sockaddr*>(&name), &length); });
  if (error < 0) return Answer(info, error);
  if (type != SOCK_STREAM || (name.ss_family != AF_INET && name.ss_family != AF_INET6)) return Answer(info, -EPROTOTYPE);
  // Both families have the port at the same place.
  if (elsewhere && !AddressOf(address, reinterpret_cast<sockaddr_in*>(&name)->sin_port, &name, &length)) return Answer(info, -EINVAL);
#ifdef SO_PROTOCOL
  if (Option(beside, SOL_SOCKET, SO_PROTOCOL, &protocol) < 0) protocol = 0;
#endif
  Fd fd(Try([&] { return socket(name.ss_family, SOCK_STREAM | kCloexec, protocol); }));
  if (fd.value < 0) return Answer(info, fd.value);
  SetCloexec(fd.value);
  error = Try([&] { return setsockopt(fd.value, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); });
  if (error == 0) error = Try([&] { return setsockopt(fd.value, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on); });
  if (error == 0 && name.ss_family == AF_INET6 && (elsewhere || (error = Option(beside, IPPROTO_IPV6, IPV6_V6ONLY, &ipv6Only)) == 0)) {
    error = Try([&] { return setsockopt(fd.value, IPPROTO_IPV6, IPV6_V6ONLY, &ipv6Only, sizeof ipv6Only); });
  }
#ifdef SO_BINDTOIFINDEX
  int interface = 0;  // else the new one would be open to networks that the other is not
  if (error == 0 && Option(beside, SOL_SOCKET, SO_BINDTOIFINDEX, &interface) == 0 && interface != 0) {
    error = Try([&] { return setsockopt(fd.value, SOL_SOCKET, SO_BINDTOIFINDEX, &interface, sizeof interface); });
  }
#endif
  if (error == 0) error = Try([&] { return bind(fd.value, reinterpret_cast<sockaddr*>(&name), length); });
  return Answer(info, error < 0 ? error : fd.Release());
}

// Files without a name.

/** memfd_create(2), by its number: musl before 1.1.20 and glibc before 2.27 have no function for it. */
Value MemoryFile(const CallbackInfo& info) {
  char name[256];  // 249 bytes are the kernel's limit; for more it answers EINVAL
  size_t length = 0;
  if (napi_get_value_string_utf8(info.Env(), info[0], name, sizeof name, &length) != napi_ok) {
    Wrong(info, 0, "a string");
    return {};
  }
  if (memchr(name, 0, length) != nullptr) return Answer(info, -EINVAL);
#if defined(__linux__) && defined(SYS_memfd_create)
  constexpr unsigned kSealable = 3, kNoExec = 8;  // MFD_CLOEXEC | MFD_ALLOW_SEALING, and MFD_NOEXEC_SEAL since Linux 6.3
  long fd = Try([&] { return syscall(SYS_memfd_create, name, kSealable | kNoExec); });
  // Older kernels do not know the last flag; with the sysctl vm.memfd_noexec=2 newer ones make no file without it.
  if (fd == -EINVAL) fd = Try([&] { return syscall(SYS_memfd_create, name, kSealable); });
  return Answer(info, fd);
#else
  return Answer(info, -ENOSYS);
#endif
}

/** fcntl(2) F_ADD_SEALS: from now on it cannot be written, made longer or shorter, or sealed further. */
Value Seal(const CallbackInfo& info) {
  int fd = -1;
  if (!ReadInt(info, 0, &fd)) return {};
#ifdef F_ADD_SEALS
  return Answer(info, Try([&] { return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL); }));
#else
  return Answer(info, -ENOSYS);
#endif
}

// Processes.

/** The pid of a child that has ended and is not reaped yet. It stays a zombie. 0 where there is none. */
Value EndedProcess(const CallbackInfo& info) {
  siginfo_t about{};
  int error = Try([&] { return waitid(P_ALL, 0, &about, WEXITED | WNOHANG | WNOWAIT); });
  return Answer(info, error < 0 ? error : about.si_pid);
}

Value Reap(const CallbackInfo& info) {
  int pid = 0;
  if (!ReadInt(info, 0, &pid)) return {};
  if (pid <= 0) return Answer(info, -EINVAL);  // which waitpid takes for any process, or for a group
  return Answer(info, Try([&] { return waitpid(pid, nullptr, WNOHANG); }));
}

Value ExitStatus(const CallbackInfo& info) {
  int pid = 0, status = 0;
  if (!ReadInt(info, 0, &pid)) return {};
  if (pid <= 0) return Answer(info, -EINVAL);
  int answer = Try([&] { return waitpid(pid, &status, WNOHANG); });
  return Answer(info, answer < 0 ? answer : answer == 0 ? -EAGAIN : status);
}

Value OpenProcess(const CallbackInfo& info) {
  int pid = 0;
  if (!ReadInt(info, 0, &pid)) return {};
#ifdef SYS_pidfd_open
  return Answer(info, Try([&] { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }));
#else
  return Answer(info, -ENOSYS);
#endif
}

#ifdef __linux__
/** A function of the libc that this runs with, which may be older than the function; else null. */
template <typename Function>
Function* InLibc(const char* name) {
  uv_lib_t self;
  void* found = nullptr;
  if (uv_dlopen(nullptr, &self) == 0) uv_dlsym(&self, name, &found);
  uv_dlclose(&self);
  return reinterpret_cast<Function*>(found);
}

// Of glibc 2.29 and musl 1.1.24.
using AddChangeDirectory = int(posix_spawn_file_actions_t*, const char*);
AddChangeDirectory* const addChangeDirectory = InLibc<AddChangeDirectory>("posix_spawn_file_actions_addchdir_np");

bool ReadText(const CallbackInfo& info, size_t index, std::string* result) {
  if (!info[index].IsString()) return Wrong(info, index, "a string");
  *result = info[index].As<Napi::String>().Utf8Value();
  return result->find('\0') == std::string::npos || Wrong(info, index, "a string without a NUL");
}

/** Strings in one, each with a NUL behind it: `pointers` leads into it, and ends as execve(2) wants it. */
bool ReadTexts(const CallbackInfo& info, size_t index, std::string* texts, std::vector<char*>* pointers) {
  if (!info[index].IsString()) return Wrong(info, index, "a string");
  *texts = info[index].As<Napi::String>().Utf8Value();
  if (!texts->empty() && texts->back() != '\0') texts->push_back('\0');
  for (size_t at = 0; at < texts->size(); at = texts->find('\0', at) + 1) pointers->push_back(&(*texts)[at]);
  pointers->push_back(nullptr);
  return true;
}
#endif

/** (file, arguments, environment, directory, descriptors, count): as the comment in native.ts says. */
Value Spawn(const CallbackInfo& info) {
#ifdef __linux__
  std::string file, arguments, environment, directory;
  std::vector<char*> argv, envp;
  Fds fds;
  if (!ReadText(info, 0, &file) || !ReadTexts(info, 1, &arguments, &argv) || !ReadTexts(info, 2, &environment, &envp) ||
      !ReadText(info, 3, &directory) || !ReadFds(info, 4, &fds)) {
    return {};
  }
  if (!fds.fits(kMaxFds)) return Answer(info, -EINVAL);
  if (addChangeDirectory == nullptr) return Answer(info, -ENOSYS);

  // Above all numbers that they are to have, so that none is taken before it is copied. They close themselves at exec.
  std::vector<std::unique_ptr<Fd>> sources;
  for (int at = 0; at < fds.count; at++) {
    sources.push_back(std::make_unique<Fd>(Try([&] { return fcntl(fds.list[at], F_DUPFD_CLOEXEC, fds.count); })));
    if (sources.back()->value < 0) return Answer(info, sources.back()->value);
    // As libuv does: a program that knows nothing of O_NONBLOCK expects none on its standard streams.
    if (at <= 2) fcntl(fds.list[at], F_SETFL, fcntl(fds.list[at], F_GETFL) & ~O_NONBLOCK);
  }

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  sigset_t every, none;
  sigfillset(&every);
  sigdelset(&every, SIGKILL);
  sigdelset(&every, SIGSTOP);
  sigemptyset(&none);
  int error = addChangeDirectory(&actions, directory.c_str());
  for (int at = 0; at < fds.count && error == 0; at++) error = posix_spawn_file_actions_adddup2(&actions, sources[at]->value, at);
  if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &every);
  if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &none);
  if (error == 0) error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  pid_t pid = 0;
  if (error == 0) error = posix_spawn(&pid, file.c_str(), &actions, &attributes, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return Answer(info, error == 0 ? pid : -error);
#else
  return Answer(info, -ENOSYS);
#endif
}

// Senders of signals: a handler that notes the sender, and calls the handler that was there before.

constexpr int kSenders = 16;
constexpr int kKernel = -1;

struct Watched {
  std::atomic<int> senders[kSenders];
  std::atomic<int> count;
  struct sigaction before;
  bool noted = false;
};
Watched watched[NSIG];

void NoteSender(int signum, siginfo_t* about, void* context) {
#ifdef __linux__
  bool byKernel = about->si_code > 0;
#else
  bool byKernel = about->si_pid == 0;
#endif
  Watched& signal = watched[signum];
  int at = signal.count.fetch_add(1);
  if (at < kSenders) signal.senders[at] = byKernel ? kKernel : about->si_pid;
  if (signal.before.sa_flags & SA_SIGINFO) {
    signal.before.sa_sigaction(signum, about, context);
  } else if (signal.before.sa_handler != SIG_DFL && signal.before.sa_handler != SIG_IGN) {
    signal.before.sa_handler(signum);
  }
}

/** For a signal for which the process has a listener already. Stays until the last listener is removed. sigaction(2) */
Value WatchSenders(const CallbackInfo& info) {
  int signum = 0;
  if (!ReadInt(info, 0, &signum)) return {};
  if (signum <= 0 || signum >= NSIG) return Answer(info, -EINVAL);
  struct sigaction now {};
  int error = Try([&] { return sigaction(signum, nullptr, &now); });
  if (error < 0) return Answer(info, error);
  if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == NoteSender) return Answer(info, 0);
  if (!(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)) return Answer(info, -EINVAL);
  Watched& signal = watched[signum];
  // Another one stands over ours (that of another copy of this file): over it in turn, each would call the other for ever.
  if (signal.noted && now.sa_sigaction != signal.before.sa_sigaction) return Answer(info, 0);
  signal.before = now;
  signal.noted = true;
  now.sa_sigaction = NoteSender;
  now.sa_flags |= SA_SIGINFO;
  return Answer(info, Try([&] { return sigaction(signum, &now, nullptr); }));
}

/** The senders of a signal since the last call, the first 16: pids, or -1 for the kernel. */
Value TakeSenders(const CallbackInfo& info) {
  Napi::Env env = info.Env();
  int signum = 0;
  if (!ReadInt(info, 0, &signum)) return {};
  if (signum <= 0 || signum >= NSIG) return Answer(info, -EINVAL);
  Watched& signal = watched[signum];
  int count = std::min(signal.count.exchange(0), kSenders);
  Napi::Array result = Napi::Array::New(env, count);
  for (int at = 0; at < count; at++) {
    if (result.Set(static_cast<uint32_t>(at), Napi::Number::New(env, signal.senders[at])).IsNothing()) return {};
  }
  return result;
}

#ifdef __linux__
/** The first number of a line; `at` is behind it then. Not by sscanf: a new glibc has it under a name that an old one does not know. */
uintptr_t NumberIn(const char** at, int base) {
  uintptr_t value = 0;
  if (base == 10) *at += strcspn(*at, "0123456789");
  *at = std::from_chars(*at, *at + strlen(*at), value, base).ptr;
  return value;
}
#endif

/**
 * The resident pages of the program's file that this process only reads: the kernel forgets that they are mapped, and maps them again
 * from its page cache when they are used. Nothing is lost, since a mapping of which a page was ever written is left alone. Bytes. proc(5)
 */
Value DropProgramPages(const CallbackInfo& info) {
#ifdef __linux__
  char program[PATH_MAX];
  ssize_t length = Try([&] { return readlink("/proc/self/exe", program, sizeof program - 1); });
  if (length < 0) return Answer(info, static_cast<int>(length));
  program[length] = '\0';
  FILE* file = fopen("/proc/self/smaps", "re");
  if (!file) return Answer(info, -errno);
  char* line = nullptr;
  size_t room = 0, resident = 0, written = 0, dropped = 0;
  uintptr_t from = 0, to = 0;
  bool isProgram = false;
  while (getline(&line, &room, file) > 0) {
    const char* at = line;
    auto is = [&](const char* name) { return strncmp(line, name, strlen(name)) == 0; };
    if (*at < 'A' || *at > 'Z') {
      // 55d0c8000000-55d0c9000000 r-xp 00a00000 fe:00 1234    /usr/bin/node
      from = NumberIn(&at, 16);
      to = NumberIn(&++at, 16);
      line[strcspn(line, "\n")] = '\0';
      const char* name = strchr(at, '/');
      isProgram = at[2] == '-' && name && strcmp(name, program) == 0;
      written = 0;
    } else if (is("Rss:")) {
      resident = NumberIn(&at, 10) * 1024;
    } else if (is("Anonymous:") || is("Swap:")) {
      written += NumberIn(&at, 10);
    } else if (is("VmFlags:") && isProgram && written == 0) {
      if (madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED) == 0) dropped += resident;
    }
  }
  free(line);
  fclose(file);
  return Napi::Number::New(info.Env(), static_cast<double>(dropped));
#else
  return Answer(info, -ENOSYS);
#endif
}

/** One turn of the event loop, which does not run yet: without waiting. 0: nothing is left that keeps it alive. */
Value RunLoop(const CallbackInfo& info) {
  uv_loop_t* loop;
  if (napi_get_uv_event_loop(info.Env(), &loop) != napi_ok) return Answer(info, -ENOSYS);
  return Answer(info, uv_run(loop, UV_RUN_NOWAIT));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("socketPair", Napi::Function::New(env, SocketPair));
  exports.Set("pipe", Napi::Function::New(env, Pipe));
  exports.Set("sendMessage", Napi::Function::New(env, SendMessage));
  exports.Set("receiveMessage", Napi::Function::New(env, ReceiveMessage));
  exports.Set("pollReadable", Napi::Function::New(env, PollReadable));
  exports.Set("watchOnce", Napi::Function::New(env, WatchOnce));
#ifdef __linux__
  exports.Set("epoll", Napi::Function::New(env, Epoll));
  exports.Set("epollAdd", Napi::Function::New(env, EpollAdd));
  exports.Set("epollReady", Napi::Function::New(env, EpollReady));
#endif
  exports.Set("accept", Napi::Function::New(env, Accept));
  exports.Set("close", Napi::Function::New(env, Close));
  exports.Set("duplicate", Napi::Function::New(env, Duplicate));
  exports.Set("duplicateTo", Napi::Function::New(env, DuplicateTo));
  exports.Set("closeOnExec", Napi::Function::New(env, CloseOnExec));
  exports.Set("describe", Napi::Function::New(env, Describe));
  exports.Set("peerCredentials", Napi::Function::New(env, PeerCredentials));
  exports.Set("listenUnix", Napi::Function::New(env, ListenUnix));
  exports.Set("connectUnix", Napi::Function::New(env, ConnectUnix));
  exports.Set("sendDatagram", Napi::Function::New(env, SendDatagram));
  exports.Set("lock", Napi::Function::New(env, Lock));
  exports.Set("openFilesLimit", Napi::Function::New(env, OpenFilesLimit));
  exports.Set("setReusePort", Napi::Function::New(env, SetReusePort));
  exports.Set("bindBeside", Napi::Function::New(env, BindBeside));
  exports.Set("memoryFile", Napi::Function::New(env, MemoryFile));
  exports.Set("seal", Napi::Function::New(env, Seal));
  exports.Set("endedProcess", Napi::Function::New(env, EndedProcess));
  exports.Set("reap", Napi::Function::New(env, Reap));
  exports.Set("exitStatus", Napi::Function::New(env, ExitStatus));
  exports.Set("openProcess", Napi::Function::New(env, OpenProcess));
  exports.Set("spawn", Napi::Function::New(env, Spawn));
  exports.Set("watchSenders", Napi::Function::New(env, WatchSenders));
  exports.Set("takeSenders", Napi::Function::New(env, TakeSenders));
  exports.Set("dropProgramPages", Napi::Function::New(env, DropProgramPages));
  exports.Set("runLoop", Napi::Function::New(env, RunLoop));
  InitTls(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(handover, Init)
