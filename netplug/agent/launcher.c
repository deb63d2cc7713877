// The native launcher: the CNI plugin that engines execute, where the host has a C compiler.
//
// It hands the call to the warm agent (protocol.py is the specification) and prints the answer.
// Without an agent that takes the call, it becomes the one-process plugin: same stdin, same
// environment, same result. It allocates nothing, and depends on no file but those baked in.
//
// Baked in by `netplug install` (build.py), with -D:
//   INTERPRETER CODE             the one-process plugin: INTERPRETER -I -c CODE PROGRAM
//   SOCKET                       the agent's
//   VERSION ABOUT                answers that need no agent; ABOUT follows "CNI PROGRAM"
//   LOST NO_INTERPRETER          CNI error objects
//   MAGIC PAYLOAD_LIMIT ANSWER_MS WORK_MS
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 8, ANSWER = 10, MOST_DESCRIPTORS = 4 };
enum { HAS_SANDBOX = 1, SANDBOX_GONE = 2 };
static const int64_t FOREVER = INT64_MAX;

static unsigned char frame[HEADER + PAYLOAD_LIMIT];  // the request, later the answer's texts
static size_t end = HEADER;                          // bytes of the request in it
static size_t stdin_start;                           // where stdin's bytes begin, 0: none taken
static bool stdin_ended;
static const char *program = "netplug";

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static bool wait_for(int fd, short events, int64_t deadline) {
    for (;;) {
        int64_t left = deadline == FOREVER ? -1 : deadline - now();
        if (deadline != FOREVER && left <= 0) return false;
        int count = poll(&(struct pollfd){.fd = fd, .events = events}, 1, (int)left);
        if (count > 0) return true;
        if (count < 0 && errno != EINTR) return false;
    }
}

// After a failed read, write or send: may it be tried again?
static bool again(int fd, short events, int64_t deadline) {
    return errno == EINTR || (errno == EAGAIN && wait_for(fd, events, deadline));
}

static bool put(int fd, const void *data, size_t size, int64_t deadline) {
    for (const char *at = data; size;) {
        ssize_t count = write(fd, at, size);
        if (count < 0 && !again(fd, POLLOUT, deadline)) return false;
        if (count > 0) at += count, size -= (size_t)count;
    }
    return true;
}

static bool get(int fd, void *data, size_t size, int64_t deadline) {
    for (char *at = data; size;) {
        ssize_t count = read(fd, at, size);
        if (count == 0 || (count < 0 && !again(fd, POLLIN, deadline))) return false;
        if (count > 0) at += count, size -= (size_t)count;
    }
    return true;
}

static _Noreturn void answer(const char *text, int status) {
    _exit(put(1, text, strlen(text), FOREVER) ? status : 1);
}

// Files that are opened later must not become stdin, stdout or stderr. Close-on-exec: the
// one-process plugin finds them closed, as the caller left them.
static void occupy_standard_descriptors(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)  // the wrong direction: using it still fails with EBADF
            open("/dev/null", (fd ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
}

// --- the one-process plugin

// Puts what was taken from stdin back, with what may still come, as a file that is descriptor 0.
static bool restore_stdin(void) {
    int file = memfd_create("stdin", MFD_CLOEXEC);
    if (file < 0 || !put(file, frame + stdin_start, end - stdin_start, FOREVER)) return false;
    while (!stdin_ended) {
        ssize_t count = read(0, frame, sizeof frame);
        if (count < 0 && !again(0, POLLIN, FOREVER)) return false;
        if (count > 0 && !put(file, frame, (size_t)count, FOREVER)) return false;
        stdin_ended = count == 0;
    }
    return lseek(file, 0, SEEK_SET) == 0 && dup2(file, 0) == 0;
}

static _Noreturn void run_alone(void) {
    const char *argv[] = {INTERPRETER, "-I", "-c", CODE, program, NULL};
    if (!stdin_start || restore_stdin()) execve(INTERPRETER, (char *const *)argv, environ);
    answer(NO_INTERPRETER, 1);
}

// --- the request

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static bool begins(const char *text, const char *with) {
    return !strncmp(text, with, strlen(with));
}

static bool append(const char *text, size_t size) {
    if (size > sizeof frame - end) return false;
    memcpy(frame + end, text, size);
    end += size;
    return true;
}

static bool append_variables(void) {
    bool fits = append("PROGRAM=", 8) && append(program, strlen(program) + 1);
    for (char **each = environ; fits && *each; each++)
        if ((begins(*each, "CNI_") && strchr(*each, '=')) || begins(*each, "TRACEPARENT=") ||
            begins(*each, "TRACESTATE=") || begins(*each, "BAGGAGE="))
            fits = append(*each, strlen(*each) + 1);
    return fits && append("", 1);
}

static bool take_stdin(void) {
    for (stdin_start = end; end < sizeof frame && !stdin_ended;) {
        ssize_t count = read(0, frame + end, sizeof frame - end);
        if (count < 0 && !again(0, POLLIN, FOREVER)) {
            stdin_start = 0;  // the one-process plugin fails in the same way, and says so
            return false;
        }
        if (count > 0) end += (size_t)count;
        stdin_ended = count == 0;
    }
    return stdin_ended;
}

// The namespaces of this call; how many descriptors, 0 where the agent cannot be told.
static size_t open_namespaces(int fds[MOST_DESCRIPTORS], unsigned char *flags) {
    const char *own[] = {"/proc/self/ns/net", "/proc/self/ns/mnt", "/proc/self/ns/user"};
    size_t count = 0;
    for (; count < 3; count++)
        if ((fds[count] = open(own[count], O_RDONLY | O_CLOEXEC)) < 0) return 0;
    const char *sandbox = variable("CNI_NETNS");
    if (!*sandbox) return count;
    if ((fds[count] = open(sandbox, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) >= 0) {
        *flags = HAS_SANDBOX;
        return count + 1;
    }
    *flags = SANDBOX_GONE;
    return errno == ENOENT || errno == ENOTDIR ? count : 0;
}

static bool send_request(int agent, const int *fds, size_t count, int64_t deadline) {
    uint32_t size = (uint32_t)(end - HEADER);
    memcpy(frame, MAGIC, 4);
    for (int i = 0; i < 4; i++) frame[4 + i] = (unsigned char)(size >> 8 * i);
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))] = {0};
    struct iovec data = {frame, end};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    ssize_t sent;
    while ((sent = sendmsg(agent, &message, 0)) < 0)
        if (!again(agent, POLLOUT, deadline)) return false;
    return put(agent, frame + sent, end - (size_t)sent, deadline);
}

// A connection to an agent that has the request, is ready to begin, and was told to go; or -1.
static int start_work(void) {
    int fds[MOST_DESCRIPTORS];
    char first;
    if (!append("", 1) || !append_variables() || !take_stdin()) return -1;
    size_t count = open_namespaces(fds, &frame[HEADER]);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    // never waits: an agent with a full queue is one that hangs
    if (!count || agent < 0 || connect(agent, (struct sockaddr *)&address, sizeof address))
        return -1;
    int64_t deadline = now() + ANSWER_MS;
    bool ready = send_request(agent, fds, count, deadline) && get(agent, &first, 1, deadline);
    return ready && first == 'B' && write(agent, "G", 1) == 1 ? agent : -1;
}

static uint32_t number(const unsigned char *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    occupy_standard_descriptors();
    if (argc > 0) program = basename(argv[0]);
    const char *command = variable("CNI_COMMAND");
    if (!strcmp(command, "VERSION")) answer(VERSION, 0);
    if (!*command) {
        bool said = append("CNI ", 4) && append(program, strlen(program));
        said = said && append(ABOUT, strlen(ABOUT)) && put(2, frame + HEADER, end - HEADER, FOREVER);
        _exit(0);
    }
    // an error that is due before stdin is read: nobody may have to type any
    if (!*variable("CNI_PATH")) run_alone();
    int agent = start_work();
    if (agent < 0) run_alone();
    unsigned char head[ANSWER];
    int64_t deadline = now() + WORK_MS;
    if (!get(agent, head, ANSWER, deadline) || head[0] != 'R') answer(LOST, 1);
    size_t out = number(head + 2), err = number(head + 6);
    if (out + err > sizeof frame || !get(agent, frame, out + err, deadline)) answer(LOST, 1);
    put(2, frame + out, err, FOREVER);
    _exit(put(1, frame, out, FOREVER) ? head[1] : 1);
}
