/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections at a known rate, and a server for them: each carries one request and one reply, and the server ends it.
 *
 *   _load serve ADDRESS PORT                        until SIGTERM
 *   _load call ADDRESS PORT RATE SECONDS TIMEOUT_MS
 *
 * Both print one line of JSON at their end. Latency is from connect() to the end of the reply.
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_FILES 16384
#define REQUEST 100
#define REPLY 200
#define BUCKETS 4096 /* of 0.1 ms and, from the middle on, of 10 ms */

static volatile sig_atomic_t stopped;
static char bytes[REPLY];

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static struct sockaddr_in address_of(const char *ip, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	if (inet_pton(AF_INET, ip, &a.sin_addr) != 1)
		exit(2);
	return a;
}

static int serve(const char *ip, const char *port)
{
	struct sockaddr_in a = address_of(ip, port);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, poll = epoll_create1(0);
	struct epoll_event events[256], watch = {.events = EPOLLIN, .data.fd = listener};
	uint64_t accepted = 0, received = 0, sent = 0, failed = 0;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 4096)) {
		perror("listen");
		return 2;
	}
	epoll_ctl(poll, EPOLL_CTL_ADD, listener, &watch);
	while (!stopped) {
		int count = epoll_wait(poll, events, 256, 200);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) {
				while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
					accepted++;
					struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
					epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
				}
				continue;
			}
			char in[REQUEST];
			ssize_t got = recv(fd, in, sizeof(in), 0);
			if (got < 0 && errno == EAGAIN)
				continue;
			received += got > 0 ? got : 0;
			ssize_t out = got > 0 ? send(fd, bytes, REPLY, MSG_NOSIGNAL) : -1;
			sent += out > 0 ? out : 0;
			failed += got != REQUEST || out != REPLY;
			close(fd);
		}
	}
	printf("{\"accepted\": %lu, \"received\": %lu, \"sent\": %lu, \"failed\": %lu}\n", accepted, received, sent, failed);
	return 0;
}

static uint64_t started[MOST_FILES], histogram[BUCKETS];
static char asked[MOST_FILES];

static unsigned bucket_of(uint64_t ns)
{
	uint64_t b = ns / 100000;
	if (b >= BUCKETS / 2)
		b = BUCKETS / 2 + (ns / 10000000 < BUCKETS / 2 - 1 ? ns / 10000000 : BUCKETS / 2 - 1);
	return b;
}

static double quantile(uint64_t of, double q)
{
	uint64_t sum = 0;
	for (unsigned b = 0; b < BUCKETS; b++)
		if ((sum += histogram[b]) >= q * of)
			return b < BUCKETS / 2 ? (b + 1) / 10.0 : (b - BUCKETS / 2 + 1) * 10.0;
	return 0;
}

static int call(const char *ip, const char *port, double rate, double seconds, uint64_t timeout_ns)
{
	struct sockaddr_in a = address_of(ip, port);
	int poll = epoll_create1(0), highest = 0;
	struct epoll_event events[256];
	uint64_t opened = 0, answered = 0, timeouts = 0, refused = 0, sum = 0, open = 0, received = 0, swept = 0;
	uint64_t begin = now_ns(), end = begin + seconds * 1e9;

	for (uint64_t now = begin; !stopped && (now < end || open) && now < end + timeout_ns + 1000000000; now = now_ns()) {
		uint64_t due = now < end ? (now - begin) / 1e9 * rate : opened;
		for (; opened < due && open < MOST_FILES / 2; opened++) {
			int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
			if (fd < 0 || fd >= MOST_FILES)
				return 3;
			highest = fd > highest ? fd : highest;
			started[fd] = now_ns();
			asked[fd] = 0;
			if (connect(fd, (struct sockaddr *)&a, sizeof(a)) && errno != EINPROGRESS) {
				close(fd);
				started[fd] = 0;
				refused++;
				continue;
			}
			struct epoll_event e = {.events = EPOLLOUT, .data.fd = fd};
			epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
			open++;
		}
		int count = epoll_wait(poll, events, 256, 1);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (!asked[fd] && !(events[i].events & (EPOLLERR | EPOLLHUP))) {
				asked[fd] = send(fd, bytes, REQUEST, MSG_NOSIGNAL) == REQUEST;
				struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
				epoll_ctl(poll, EPOLL_CTL_MOD, fd, &e);
				if (asked[fd])
					continue;
			}
			char in[2 * REPLY];
			ssize_t got = recv(fd, in, sizeof(in), 0);
			if (got < 0 && errno == EAGAIN)
				continue;
			if (got > 0) {
				received += got;
				asked[fd] = 2;
				continue; /* its end is still to come */
			}
			uint64_t took = now_ns() - started[fd];
			if (got == 0 && asked[fd] == 2 && took <= timeout_ns) {
				answered++;
				sum += took;
				histogram[bucket_of(took)]++;
			} else if (took > timeout_ns) {
				timeouts++;
			} else {
				refused++;
			}
			close(fd);
			started[fd] = 0;
			open--;
		}
		now = now_ns();
		for (int fd = now - swept > 100000000 ? 0 : highest + 1; fd <= highest; fd++) {
			if (started[fd] && now - started[fd] > timeout_ns) {
				close(fd);
				started[fd] = 0;
				timeouts++;
				open--;
			}
			swept = now;
		}
	}
	printf("{\"opened\": %lu, \"answered\": %lu, \"timeouts\": %lu, \"failed\": %lu, \"received\": %lu, \"mean_ms\": %.3f, "
	       "\"p50_ms\": %.1f, \"p99_ms\": %.1f}\n",
	       opened, answered, timeouts, refused, received, answered ? sum / 1e6 / answered : 0, quantile(answered, 0.5),
	       quantile(answered, 0.99));
	return 0;
}

int main(int count, char **words)
{
	struct rlimit files = {MOST_FILES, MOST_FILES};

	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGTERM, stop);
	if (count == 4 && !strcmp(words[1], "serve"))
		return serve(words[2], words[3]);
	if (count == 7 && !strcmp(words[1], "call"))
		return call(words[2], words[3], atof(words[4]), atof(words[5]), atoll(words[6]) * 1000000ull);
	return 2;
}
