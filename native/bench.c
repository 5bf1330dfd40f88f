/*
 * The measure for packages/load/src/bench-fds.ts: the same system calls in C, between two processes, with nothing around them.
 * `bench rate N MS` prints descriptors per second, `bench trip N MS` round trips per second, for N descriptors a message.
 * Each message has one byte; the receiver closes what it gets; the byte 'E' ends the measure.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX 252

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void message(struct msghdr *head, struct iovec *data, char *byte, char *control, size_t room) {
  *data = (struct iovec){byte, 1};
  *head = (struct msghdr){.msg_iov = data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
}

static void sendFds(int connection, int count, const int *fds, char byte) {
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAX)];
  struct msghdr head;
  struct iovec data;
  message(&head, &data, &byte, control, CMSG_SPACE(sizeof(int) * count));
  struct cmsghdr *part = CMSG_FIRSTHDR(&head);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int) * count);
  memcpy(CMSG_DATA(part), fds, sizeof(int) * count);
  if (sendmsg(connection, &head, 0) != 1) abort();
}

static char receiveFds(int connection, int *count, int *fds) {
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAX)];
  struct msghdr head;
  struct iovec data;
  char byte;
  message(&head, &data, &byte, control, sizeof control);
#ifdef MSG_CMSG_CLOEXEC
  ssize_t bytes = recvmsg(connection, &head, MSG_CMSG_CLOEXEC);
#else
  ssize_t bytes = recvmsg(connection, &head, 0);
#endif
  if (bytes != 1 || (head.msg_flags & MSG_CTRUNC) != 0) abort();
  struct cmsghdr *part = CMSG_FIRSTHDR(&head);
  *count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  memcpy(fds, CMSG_DATA(part), sizeof(int) * *count);
  return byte;
}

static void closeAll(int count, const int *fds) {
  for (int at = 0; at < count; at++) close(fds[at]);
}

static void receiver(int connection, int answers) {
  int count, fds[MAX];
  for (;;) {
    char byte = receiveFds(connection, &count, fds);
    if (answers || byte == 'E') sendFds(connection, answers ? count : 1, fds, byte);
    closeAll(count, fds);
    if (byte == 'E') return;
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int trip = strcmp(argv[1], "trip") == 0, count = atoi(argv[2]), pair[2], fds[MAX], got[MAX], gotCount;
  double seconds = atoi(argv[3]) / 1e3;
  if (count < 1 || count > MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return 2;
  int file = open("/dev/null", O_RDONLY);  /* a socket would make the kernel look for cycles */
  for (int at = 0; at < count; at++) fds[at] = file;
  pid_t child = fork();
  if (child == 0) {
    receiver(pair[1], trip);
    _exit(0);
  }
  long messages = 0;
  double start = now();
  for (; messages % 16 != 0 || now() - start < seconds; messages++) {
    sendFds(pair[0], count, fds, 'x');
    if (!trip) continue;
    receiveFds(pair[0], &gotCount, got);
    closeAll(gotCount, got);
  }
  sendFds(pair[0], 1, fds, 'E');
  receiveFds(pair[0], &gotCount, got);
  double passed = now() - start;
  waitpid(child, NULL, 0);
  printf("%.0f\n", messages / passed * (trip ? 1 : count));
  return 0;
}
