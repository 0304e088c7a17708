/* tunload - traffic of many VPN clients, each in a network namespace of its own, from one light process.
 * tunload LAN_NAMESPACE PORT
 * Listens in the LAN's namespace as a TCP echo server on PORT, and takes commands on stdin, one a line:
 *   add I NAMESPACE LAN_IPV4 LAN_IPV6 MAIN   client I (0 ...): pings the LAN every 50 ms over inner IPv MAIN (4 or 6) and every
 *                                            500 ms over the other; LAN_IPV6 "-" = no IPv6 inside
 *   drop I                                   client I is gone
 *   open MS                                  opens the TCP connections that are not open: one idle, one busy (500 bytes
 *                                            every 200 ms, echoed), answers after at most MS ms
 *   mark                                     gaps count from here
 *   gaps                                     longest time without an answer of each client since mark, the one that
 *                                            mark fell into included
 *   check MS                                 asks every TCP connection for an echo, answers when all are decided, at
 *                                            most MS ms later
 * Every command is answered by one line of JSON on stdout. Times are CLOCK_REALTIME seconds. Ends with stdin.
 * gcc -O2 -o tunload tunload.c */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_CLIENTS 1024
#define PING_S 0.05
#define OTHER_S 0.5
#define BUSY_S 0.2
#define BUSY_BYTES 500
#define BUSY_AHEAD 65536 /* bytes under way at most */

enum { CLOSED, OPENING, OPEN, DEAD };
typedef struct { int fd, state, want; uint64_t sent, got, asked; } tcp_t;
typedef struct { int fd; double last, longest, from, to, due; uint16_t seq; } ping_t;
typedef struct { int on, family; struct sockaddr_in v4; struct sockaddr_in6 v6; int has6; char ns[128]; ping_t ping[2]; tcp_t tcp[2]; double busy_due; } client_t;

/* what an epoll event belongs to */
enum { K_STDIN, K_TICK, K_LISTEN, K_ECHO, K_PING4, K_PING6, K_IDLE, K_BUSY };
#define TAG(kind, i) (((uint64_t)(kind) << 32) | (uint32_t)(i))

static client_t C[MAX_CLIENTS];
static int top, ep, home_ns, port, waiting;         /* waiting: 'o' or 'c' while a command is not answered yet */
static double wait_until, marked;

static double now(void) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
static void watch(int fd, uint64_t tag, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.u64 = tag };
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)) epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
}

/* enters a namespace; sockets made there stay there */
static int enter(const char *name)
{
	char path[256];
	snprintf(path, sizeof path, "/run/netns/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return -1;
	int r = setns(fd, CLONE_NEWNET);
	close(fd);
	return r;
}
static void leave(void) { setns(home_ns, CLONE_NEWNET); }

/* ---- pings ---- */
static uint16_t sum16(const void *p, int n)
{
	const uint16_t *w = p;
	uint32_t s = 0;
	for (; n > 1; n -= 2) s += *w++;
	s = (s >> 16) + (s & 0xffff);
	return ~(s + (s >> 16));
}
static void send_ping(int i, int six)
{
	ping_t *p = &C[i].ping[six];
	uint8_t b[16] = { six ? ICMP6_ECHO_REQUEST : ICMP_ECHO };
	uint16_t id = htons(0x5000 + i), seq = htons(++p->seq);
	memcpy(b + 4, &id, 2); memcpy(b + 6, &seq, 2);
	if (!six) { uint16_t s = sum16(b, sizeof b); memcpy(b + 2, &s, 2); }
	if (six) sendto(p->fd, b, sizeof b, MSG_DONTWAIT, (void *)&C[i].v6, sizeof C[i].v6);
	else sendto(p->fd, b, sizeof b, MSG_DONTWAIT, (void *)&C[i].v4, sizeof C[i].v4);
}
static void take_pings(int i, int six)
{
	ping_t *p = &C[i].ping[six];
	uint8_t b[2048];
	int n;
	while ((n = recv(p->fd, b, sizeof b, MSG_DONTWAIT)) > 0) {
		int off = six ? 0 : (b[0] & 15) * 4;
		if (n < off + 8 || b[off] != (six ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY)) continue;
		if (((b[off + 4] << 8) | b[off + 5]) != 0x5000 + i) continue;
		double t = now();
		if (p->last && marked && t - p->last > p->longest) { p->longest = t - p->last; p->from = p->last; p->to = t; }
		p->last = t;
	}
}

/* ---- TCP ---- */
static void shut(tcp_t *t, int state) { if (t->fd > 0) close(t->fd); t->fd = 0; t->state = state; }
static void open_tcp(int i, int busy)
{
	client_t *c = &C[i];
	tcp_t *t = &c->tcp[busy];
	int six = c->has6 && ((c->family == 6) ^ busy), one = 1;
	if (enter(c->ns)) return;
	shut(t, OPENING);
	t->sent = t->got = t->want = t->asked = 0;
	t->fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	leave();
	setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	struct sockaddr_in v4 = c->v4;
	struct sockaddr_in6 v6 = c->v6;
	v4.sin_port = v6.sin6_port = htons(port);
	if (connect(t->fd, six ? (void *)&v6 : (void *)&v4, six ? sizeof v6 : sizeof v4) && errno != EINPROGRESS) { shut(t, DEAD); return; }
	watch(t->fd, TAG(busy ? K_BUSY : K_IDLE, i), EPOLLIN | EPOLLOUT);
}
static void put(tcp_t *t, int n)
{
	static char b[BUSY_BYTES];
	int r = send(t->fd, b, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r > 0) t->sent += r;
	else if (r < 0 && errno != EAGAIN) shut(t, DEAD);
}
static void take_tcp(int i, int busy, uint32_t events)
{
	tcp_t *t = &C[i].tcp[busy];
	char b[16384];
	int r, e = 0;
	socklen_t l = sizeof e;
	if (t->fd <= 0) return;
	if (t->state == OPENING && (events & (EPOLLOUT | EPOLLERR))) {
		getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &e, &l);
		if (e) { shut(t, DEAD); return; }
		t->state = OPEN;
		watch(t->fd, TAG(busy ? K_BUSY : K_IDLE, i), EPOLLIN);
		put(t, 1);
	}
	while ((r = recv(t->fd, b, sizeof b, MSG_DONTWAIT)) > 0) t->got += r;
	if (r == 0 || (r < 0 && errno != EAGAIN)) shut(t, DEAD);
}
static void echo(int fd)
{
	char b[16384];
	int r;
	while ((r = recv(fd, b, sizeof b, MSG_DONTWAIT)) > 0)
		if (send(fd, b, r, MSG_DONTWAIT | MSG_NOSIGNAL) != r) { r = 0; break; }
	if (r == 0 || (r < 0 && errno != EAGAIN)) close(fd);
}

/* ---- commands ---- */
static void each_open(double ms)
{
	for (int i = 0; i < top; i++) for (int k = 0; C[i].on && k < 2; k++) if (C[i].tcp[k].state != OPEN) open_tcp(i, k);
	waiting = 'o'; wait_until = now() + ms / 1e3;
}
static void each_check(double ms)
{
	for (int i = 0; i < top; i++) for (int k = 0; C[i].on && k < 2; k++) {
		tcp_t *t = &C[i].tcp[k];
		t->want = t->state == OPEN;
		if (t->want) { put(t, 1); t->asked = t->sent; }
	}
	waiting = 'c'; wait_until = now() + ms / 1e3;
}
/* the answer of open and check, once all connections are decided or the time is over */
static void answer(void)
{
	int left = 0;
	for (int i = 0; i < top; i++) for (int k = 0; C[i].on && k < 2; k++) {
		tcp_t *t = &C[i].tcp[k];
		if (waiting == 'o' ? t->state == OPENING || (t->state == OPEN && !t->got) : t->want && t->state == OPEN && t->got < t->asked) left++;
	}
	if (left && now() < wait_until) return;
	const char *sep = "";
	printf("{\"%s\":[", waiting == 'o' ? "open" : "check");
	for (int i = 0; i < top; i++) if (C[i].on) {
		int ok[2];
		for (int k = 0; k < 2; k++) {
			tcp_t *t = &C[i].tcp[k];
			ok[k] = t->state == OPEN && (waiting == 'o' ? t->got > 0 : t->want && t->got >= t->asked);
			if (!ok[k] && t->fd > 0) shut(t, DEAD);
		}
		printf("%s{\"client\":%d,\"idle\":%s,\"busy\":%s}", sep, i, ok[0] ? "true" : "false", ok[1] ? "true" : "false");
		sep = ",";
	}
	printf("]}\n");
	fflush(stdout);
	waiting = 0;
}
static void gaps(void)
{
	double t = now();
	const char *sep = "";
	printf("{\"gaps\":[");
	for (int i = 0; i < top; i++) if (C[i].on) {
		printf("%s{\"client\":%d", sep, i);
		for (int k = 0; k < 2; k++) {
			int six = k ? C[i].family != 6 : C[i].family == 6;
			ping_t *p = &C[i].ping[six];
			if (six && !C[i].has6) continue;
			double gap = p->longest, from = p->from, to = p->to, silent = t - (p->last ? p->last : marked);
			if (silent > gap) { gap = silent; from = t - silent; to = t; }
			printf(",\"%s\":{\"seconds\":%.4f,\"from\":%.4f,\"to\":%.4f,\"silent\":%.4f}", k ? "other" : "main", gap, from, to, silent);
		}
		printf("}");
		sep = ",";
	}
	printf("]}\n");
	fflush(stdout);
}
static int add(char *line)
{
	int i, family;
	char ns[128], v4[64], v6[64];
	if (sscanf(line, "add %d %127s %63s %63s %d", &i, ns, v4, v6, &family) != 5 || i < 0 || i >= MAX_CLIENTS) return -1;
	client_t *c = &C[i];
	memset(c, 0, sizeof *c);
	strcpy(c->ns, ns);
	c->family = family;
	c->has6 = strcmp(v6, "-") != 0;
	c->v4.sin_family = AF_INET; c->v6.sin6_family = AF_INET6;
	if (inet_pton(AF_INET, v4, &c->v4.sin_addr) != 1 || (c->has6 && inet_pton(AF_INET6, v6, &c->v6.sin6_addr) != 1) || enter(ns)) return -1;
	for (int six = 0; six <= c->has6; six++) {
		c->ping[six].fd = socket(six ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, six ? (int)IPPROTO_ICMPV6 : (int)IPPROTO_ICMP);
		if (c->ping[six].fd < 0) { leave(); return -1; }
		if (six) {
			struct icmp6_filter f;
			ICMP6_FILTER_SETBLOCKALL(&f);
			ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &f);
			setsockopt(c->ping[six].fd, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof f);
		}
		watch(c->ping[six].fd, TAG(six ? K_PING6 : K_PING4, i), EPOLLIN);
		c->ping[six].due = now() + i * 0.0037;
	}
	leave();
	c->on = 1;
	if (i >= top) top = i + 1;
	return 0;
}
static void drop(int i)
{
	if (i < 0 || i >= top || !C[i].on) return;
	for (int k = 0; k < 2; k++) { if (C[i].ping[k].fd > 0) close(C[i].ping[k].fd); shut(&C[i].tcp[k], CLOSED); }
	C[i].on = 0;
}
static void command(char *line)
{
	int i;
	double ms;
	if (!strncmp(line, "add ", 4)) printf("{\"added\":%s}\n", add(line) ? "false" : "true");
	else if (sscanf(line, "drop %d", &i) == 1) { drop(i); printf("{\"dropped\":true}\n"); }
	else if (sscanf(line, "open %lf", &ms) == 1) each_open(ms);
	else if (sscanf(line, "check %lf", &ms) == 1) each_check(ms);
	else if (!strcmp(line, "gaps")) gaps();
	else if (!strcmp(line, "mark")) {
		marked = now();
		for (int c = 0; c < top; c++) for (int k = 0; k < 2; k++) C[c].ping[k].longest = 0;
		printf("{\"marked\":%.4f}\n", marked);
	} else printf("{\"unknown\":true}\n");
	fflush(stdout);
}

static void tick(void)
{
	double t = now();
	for (int i = 0; i < top; i++) {
		client_t *c = &C[i];
		if (!c->on) continue;
		for (int six = 0; six <= c->has6; six++) {
			ping_t *p = &c->ping[six];
			double every = six == (c->family == 6) ? PING_S : OTHER_S;
			if (p->due > t) continue;
			send_ping(i, six);
			p->due = p->due + every > t ? p->due + every : t + every;
		}
		tcp_t *b = &c->tcp[1];
		if (b->state == OPEN && c->busy_due <= t) {
			if (b->sent - b->got < BUSY_AHEAD) put(b, BUSY_BYTES);
			c->busy_due = t + BUSY_S;
		}
	}
	if (waiting) answer();
}

int main(int argc, char **v)
{
	if (argc < 3) return 2;
	port = atoi(v[2]);
	struct rlimit rl = { 20000, 20000 };
	setrlimit(RLIMIT_NOFILE, &rl);
	home_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (home_ns < 0 || enter(v[1])) { perror(v[1]); return 1; }
	int ls = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, zero = 0;
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(ls, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	if (bind(ls, (void *)&sa, sizeof sa) || listen(ls, 1024)) { perror("listen"); return 1; }
	leave();
	int tk = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	struct itimerspec its = { { 0, 5000000 }, { 0, 5000000 } };
	timerfd_settime(tk, 0, &its, NULL);
	watch(0, TAG(K_STDIN, 0), EPOLLIN); watch(tk, TAG(K_TICK, 0), EPOLLIN); watch(ls, TAG(K_LISTEN, 0), EPOLLIN);
	printf("{\"ready\":true}\n");
	fflush(stdout);
	static char in[65536];
	int have = 0;
	for (;;) {
		struct epoll_event e[256];
		int n = epoll_wait(ep, e, 256, -1);
		for (int k = 0; k < n; k++) {
			int kind = e[k].data.u64 >> 32, i = (uint32_t)e[k].data.u64, r;
			uint64_t times;
			if (kind == K_TICK) { if (read(tk, &times, sizeof times) > 0) tick(); }
			else if (kind == K_LISTEN) { while ((r = accept4(ls, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) { setsockopt(r, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); watch(r, TAG(K_ECHO, r), EPOLLIN); } }
			else if (kind == K_ECHO) echo(i);
			else if (kind == K_PING4 || kind == K_PING6) take_pings(i, kind == K_PING6);
			else if (kind == K_IDLE || kind == K_BUSY) take_tcp(i, kind == K_BUSY, e[k].events);
			else {
				r = read(0, in + have, sizeof in - 1 - have);
				if (r <= 0) return 0;
				in[have += r] = 0;
				char *line = in, *end;
				while ((end = strchr(line, '\n'))) { *end = 0; command(line); line = end + 1; }
				memmove(in, line, have -= line - in);
			}
		}
	}
}
