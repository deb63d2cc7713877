// The native launcher: the CNI plugin that engines execute, where the host has a C compiler.
//
// It hands the call to the agent as protocol.py says; where none takes it, it becomes the
// one-process plugin: same stdin, same environment. Baked in by `netplug install`, with -D:
//   INTERPRETER CODE             the one-process plugin: INTERPRETER -IS -c CODE PROGRAM
//   VERSION ABOUT                answers that need no agent; ABOUT follows "CNI PROGRAM"
//   LOST NO_INTERPRETER          CNI error objects
//   SOCKET MAGIC PAYLOAD_LIMIT ANSWER_MS WORK_MS
#define _GNU_SOURCE
#include <endian.h>
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

enum { HEADER = 8, OWN_DESCRIPTORS = 3, HAS_SANDBOX = 1, SANDBOX_GONE = 2 };
#define FOREVER INT64_MAX

static unsigned char frame[HEADER + PAYLOAD_LIMIT];  // the request; later the answer's texts
static size_t end = HEADER;                          // bytes of the request
static size_t stdin_start;                           // where stdin begins in it; 0: none taken
static bool stdin_ended;
static const char *program;

static int64_t now(void) {  // ms
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

// After a failed system call: true once it is worth another try.
static bool again(int fd, short events, int64_t deadline) {
    if (errno == EINTR) return true;
    if (errno != EAGAIN) return false;
    int64_t left = deadline == FOREVER ? -1 : deadline - now();
    int ready = deadline != FOREVER && left <= 0
        ? 0 : poll(&(struct pollfd){.fd = fd, .events = events}, 1, (int)left);
    return ready > 0 || (ready < 0 && errno == EINTR);
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

static _Noreturn void finish(const void *text, size_t size, int status) {
    _exit(put(1, text, size, FOREVER) ? status : 1);
}

// No file that is opened later may become stdin, stdout or stderr. The one-process plugin finds
// them closed, as the caller left them; using them here fails with EBADF, by the wrong direction.
static void occupy_standard_descriptors(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0) open("/dev/null", (fd ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
}

// Puts back what was taken from stdin, and what may still come, as a file that is descriptor 0.
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
    const char *argv[] = {INTERPRETER, "-IS", "-c", CODE, program, NULL};
    if (!stdin_start || restore_stdin()) execve(INTERPRETER, (char *const *)argv, environ);
    finish(NO_INTERPRETER, strlen(NO_INTERPRETER), 1);
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static bool append(const char *text, size_t size) {
    if (size > sizeof frame - end) return false;
    memcpy(frame + end, text, size);
    end += size;
    return true;
}

static bool append_variables(void) {
    static const char *const passed[] = {"CNI_", "TRACEPARENT=", "TRACESTATE=", "BAGGAGE="};
    bool fits = append("PROGRAM=", 8) && append(program, strlen(program) + 1);
    for (char **each = environ; *each; each++)
        for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
            if (!strncmp(*each, passed[i], strlen(passed[i])))
                fits = fits && append(*each, strlen(*each) + 1);
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

// Opens the namespaces of this call; how many, or 0 where the agent cannot be given them.
static size_t open_namespaces(int *fds) {
    const char *paths[] = {"/proc/self/ns/net", "/proc/self/ns/mnt", "/proc/self/ns/user",
                           variable("CNI_NETNS")};
    for (size_t i = 0; i < OWN_DESCRIPTORS; i++)
        if ((fds[i] = open(paths[i], O_RDONLY | O_CLOEXEC)) < 0) return 0;
    if (!*paths[OWN_DESCRIPTORS]) return OWN_DESCRIPTORS;
    fds[OWN_DESCRIPTORS] = open(paths[OWN_DESCRIPTORS], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    frame[HEADER] = fds[OWN_DESCRIPTORS] < 0 ? SANDBOX_GONE : HAS_SANDBOX;
    if (fds[OWN_DESCRIPTORS] >= 0) return OWN_DESCRIPTORS + 1;
    return errno == ENOENT || errno == ENOTDIR ? OWN_DESCRIPTORS : 0;
}

static bool send_request(int agent, const int *fds, size_t count, int64_t deadline) {
    uint32_t size = htole32((uint32_t)(end - HEADER));
    memcpy(memcpy(frame, MAGIC, 4) + 4, &size, 4);
    _Alignas(struct cmsghdr) char control[CMSG_SPACE((OWN_DESCRIPTORS + 1) * sizeof(int))] = {0};
    struct msghdr message = {.msg_iov = &(struct iovec){frame, end}, .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    *CMSG_FIRSTHDR(&message) = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                                                .cmsg_len = CMSG_LEN(count * sizeof(int))};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, count * sizeof(int));
    ssize_t sent;
    while ((sent = sendmsg(agent, &message, 0)) < 0)
        if (!again(agent, POLLOUT, deadline)) return false;
    return put(agent, frame + sent, end - (size_t)sent, deadline);
}

// A connection to an agent that has the whole call, was ready, and was told to go; or -1.
static int start_work(void) {
    int fds[OWN_DESCRIPTORS + 1];
    if (!append("", 1) || !append_variables() || !take_stdin()) return -1;
    size_t count = open_namespaces(fds);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    // never waits: an agent whose queue is full is as good as none
    if (!count || agent < 0 || connect(agent, (void *)&address, sizeof address)) return -1;
    char first = 0;
    int64_t deadline = now() + ANSWER_MS;
    bool ready = send_request(agent, fds, count, deadline) && get(agent, &first, 1, deadline);
    return ready && first == 'B' && write(agent, "G", 1) == 1 ? agent : -1;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    occupy_standard_descriptors();
    const char *slash = argc ? strrchr(argv[0], '/') : NULL;
    program = slash ? slash + 1 : argc ? argv[0] : "";
    if (!strcmp(variable("CNI_COMMAND"), "VERSION")) finish(VERSION, strlen(VERSION), 0);
    if (!*variable("CNI_COMMAND")) {
        if (append("CNI ", 4) && append(program, strlen(program)) && append(ABOUT, strlen(ABOUT)))
            put(2, frame + HEADER, end - HEADER, FOREVER);
        return 0;
    }
    // without CNI_PATH the answer is an error that must not wait for stdin
    int agent = *variable("CNI_PATH") ? start_work() : -1;
    if (agent < 0) run_alone();
    struct __attribute__((packed)) { char kind; uint8_t status; uint32_t out, err; } head = {0};
    int64_t deadline = now() + WORK_MS;
    bool whole = get(agent, &head, sizeof head, deadline) && head.kind == 'R';
    uint64_t out = le32toh(head.out), err = le32toh(head.err);
    if (!whole || out + err > PAYLOAD_LIMIT || !get(agent, frame, out + err, deadline))
        finish(LOST, strlen(LOST), 1);
    put(2, frame + out, err, FOREVER);
    finish(frame, out, head.status);
}
