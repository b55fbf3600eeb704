/* SPDX-License-Identifier: Apache-2.0
 *
 * Totals of TCP connections, from the states of their sockets: every connection that a filter names and that began since the
 * probe was attached, whether its packets are followed or not. No packet is looked at and no event is sent: user space empties
 * a table now and then, while the other one is counted in.
 */
#define SOCKETS 32768
#define ROWS 16384

/* include/net/tcp_states.h */
#define ESTABLISHED 1
#define SYN_SENT 2
#define SYN_RECV 3
#define FIN_WAIT2 5
#define CLOSE 7
#define CLOSE_WAIT 8
#define LAST_ACK 9
#define CLOSING 11

#define SOCK_DONE 2 /* bit 1 of sk_flags: the other end has sent its FIN (tcp_fin) */

/* include/uapi/asm-generic/errno.h */
#define E_PIPE 32
#define E_RESET 104
#define E_TIMEDOUT 110
#define E_REFUSED 111

enum side { SIDE_CLIENT = 0, SIDE_SERVER = 1 };

/* Who called whom, as one end's socket has it, and where the client's node sent it: known when the handshake is over. */
struct row_key {
	__u8 client[16];
	__u8 server[16];
	__u8 backend[16]; /* zero: where the client asked, not known, or not known yet */
	__u16 port;	  /* the server's, host byte order */
	__u16 backend_port;
	__u8 side;
	__u8 pad[3];
};

/* Of the time since the tables changed places last. Each connection is in `opened` (at the client, in the row without a backend) or `established` (at the server), and in one of
 * the rest once it is over. */
struct row {
	__u64 opened;
	__u64 established;
	__u64 refused;
	__u64 timed_out; /* before it was established, or after */
	__u64 given_up;	 /* before it was established: by its owner, or as the destination can't be reached */
	__u64 ended;	 /* in order */
	__u64 reset;
	__u64 sent; /* bytes that the other end has acknowledged, of those that are over */
	__u64 received;
};

struct counted {
	struct row_key key;
};

BPF_HASH(sockets, __u64, struct counted, SOCKETS);
BPF_ARRAY(active, __u64, 1); /* which of the two is counted in */
BPF_HASH(rows0, struct row_key, struct row, ROWS);
BPF_HASH(rows1, struct row_key, struct row, ROWS);
BPF_TABLE("lru_hash", struct way_key, struct way, ways, WAYS); /* the packet probe's, where there is one */

static __always_inline struct row *row_of(struct row_key *key)
{
	struct row fresh = {};
	int zero = 0;
	__u64 *which = active.lookup(&zero);
	int second = which && *which;
	struct row *r = second ? rows1.lookup(key) : rows0.lookup(key);

	if (r)
		return r;
	if (second)
		rows1.insert(key, &fresh);
	else
		rows0.insert(key, &fresh);
	r = second ? rows1.lookup(key) : rows0.lookup(key);
	if (!r)
		count(ACCOUNT_FLOWS_FULL);
	return r;
}

static __always_inline int is_of_interest(struct tuple *t, __u64 sk)
{
	if (!is_own(socket_netns(sk)))
		return 0;
	socket_tuple(t, sk);
	return matches(t);
}

/* Begins to count a socket's connection, if it is of interest. What is there of the socket's address is of one before it, whose end
 * was not seen: a program that would run inside itself is skipped. */
static __always_inline struct row *begin(__u64 sk, __u8 side)
{
	struct counted c = {};
	struct tuple t;

	if (!is_of_interest(&t, sk)) {
		sockets.delete(&sk);
		return 0;
	}
	c.key.side = side;
	__builtin_memcpy(c.key.client, side == SIDE_CLIENT ? t.saddr : t.daddr, 16);
	__builtin_memcpy(c.key.server, side == SIDE_CLIENT ? t.daddr : t.saddr, 16);
	c.key.port = side == SIDE_CLIENT ? t.dport : t.sport;
	if (sockets.update(&sk, &c)) {
		count(ACCOUNT_FLOWS_FULL);
		return 0;
	}
	return row_of(&c.key);
}

/* Learns where the node's rules sent a client's SYN, from what the packet probe saw of it. Before and after the handshake its
 * sequence number is what is not acknowledged yet less what was. */
static __always_inline void find_backend(struct row_key *key, __u64 sk)
{
	struct tcp_bytes b = {};
	struct sock_port p = {}; /* skc_num is 0 where the connection was refused */
	struct way_key asked = {};

	READ_VIEW(b, tcp_bytes, sk);
	READ_VIEW(p, sock_port, sk);
	asked.seq = b.snd_una - (__u32)b.bytes_acked;
	asked.sport = be16((__u8 *)&p.inet_sport);
	struct way *way = ways.lookup(&asked);
	if (!way)
		return;
	if (way->dport != key->port || !same_address(way->daddr, key->server)) {
		__builtin_memcpy(key->backend, way->daddr, 16);
		key->backend_port = way->dport;
	}
	ways.delete(&asked);
}

/* Counts how a connection ended that was established: tcp_sock counts its SYN among the acknowledged bytes, and each FIN. */
static __always_inline void end(struct row *r, __u64 sk, __u8 side, int before, int error)
{
	struct tcp_bytes b = {};
	struct sock_end e = {};
	int fin_acked = before == FIN_WAIT2 || (!error && (before == LAST_ACK || before == CLOSING));

	READ_VIEW(b, tcp_bytes, sk);
	READ_VIEW(e, sock_end, sk);
	__u64 over = (side == SIDE_CLIENT) + fin_acked, fin = (e.__sk_common_skc_flags & SOCK_DONE) != 0;
	__sync_fetch_and_add(&r->sent, b.bytes_acked > over ? b.bytes_acked - over : 0);
	__sync_fetch_and_add(&r->received, b.bytes_received > fin ? b.bytes_received - fin : 0);
	if (error == E_TIMEDOUT)
		__sync_fetch_and_add(&r->timed_out, 1);
	else if (error == E_RESET || error == E_PIPE || before == ESTABLISHED || before == CLOSE_WAIT)
		__sync_fetch_and_add(&r->reset, 1);
	else
		__sync_fetch_and_add(&r->ended, 1);
}

int on_state(struct bpf_raw_tracepoint_args *ctx) /* sock:inet_sock_set_state(sk, oldstate, newstate) */
{
	__u64 sk = ctx->args[0];
	int before = ctx->args[1], now = ctx->args[2];
	struct row *r;

	if (now == SYN_SENT) {
		r = begin(sk, SIDE_CLIENT);
		if (r)
			__sync_fetch_and_add(&r->opened, 1);
		return 0;
	}
	if (now != ESTABLISHED && now != CLOSE)
		return 0;
	struct counted *c = sockets.lookup(&sk);
	if (now == ESTABLISHED && before == SYN_RECV && (!c || c->key.side == SIDE_SERVER)) { /* else both ends called at once */
		r = begin(sk, SIDE_SERVER);
		if (r)
			__sync_fetch_and_add(&r->established, 1);
		return 0;
	}
	if (!c)
		return 0;
	if (c->key.side == SIDE_CLIENT && (now == ESTABLISHED || before == SYN_SENT))
		find_backend(&c->key, sk);
	struct row_key key = c->key;
	r = row_of(&key);
	if (now == ESTABLISHED) {
		if (r)
			__sync_fetch_and_add(&r->established, 1);
		return 0;
	}
	sockets.delete(&sk);
	if (!r)
		return 0;
	struct sock_end e = {};
	READ_VIEW(e, sock_end, sk);
	if (before != SYN_SENT)
		end(r, sk, key.side, before, e.sk_err);
	else if (e.sk_err == E_REFUSED || e.sk_err == E_RESET)
		__sync_fetch_and_add(&r->refused, 1);
	else if (e.sk_err == E_TIMEDOUT)
		__sync_fetch_and_add(&r->timed_out, 1);
	else
		__sync_fetch_and_add(&r->given_up, 1);
	return 0;
}
