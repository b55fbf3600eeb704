/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel drops: packets freed for a reason that is not harmless, counted per (tuple, reason, location,
 * namespace), and what explains them: ICMP errors, TCP resets, retransmits, and the connections that did come about.
 *
 * A flood costs counters. There are two tables: programs count in one while the agent empties the other, so that no
 * count is lost and memory is bounded. Where a table is full, the source is left out of the key (`coarse`), and where
 * that is full too, the packet is counted as lost. The first packet of a key, and one in SAMPLE_NS after, is an event
 * with its stack.
 */
#define COARSE_ENTRIES 512
#define SAMPLED_ENTRIES 8192
#define SAMPLE_NS 10000000000ull
#define SAMPLES 200 /* a second and CPU; no sample is no loss: the packet is counted */

enum kind { KIND_DROP = 1, KIND_ICMP = 2, KIND_ICMP_DROP = 3, KIND_RESET_SENT = 4, KIND_RESET_RECEIVED = 5,
	    KIND_RETRANSMIT = 6, KIND_ESTABLISHED = 7 };
/* A SYN without ACK, or the reset that answers one; a reset that no packet provoked; a SYN-ACK. */
enum { FLAG_OPENING = 1, FLAG_ACTIVE = 2, FLAG_ANSWERING = 4 };
enum { SETTING_ACTIVE = 0, SETTING_EVERYTHING = 1, SETTING_MAX = 2 };

#define IN_VAIN 3 /* timeouts in a row, without an acknowledgement between them */

struct drop_key {
	struct tuple t; /* of the innermost packet: inside a tunnel, quoted by an ICMP error */
	__u64 location;
	__u32 netns;
	__u32 reason; /* of a drop; sk_rst_reason of a reset; TCP state of a retransmit */
	__u8 kind;
	__u8 flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u32 pad;
};
_Static_assert(sizeof(struct drop_key) == 64, "read by agent/probes/layout.py");

struct tally {
	__u64 packets;
	__u64 bytes; /* of a retransmit: segments that were sent again in vain */
};

struct sample {
	__u64 t_ns;
	__u64 skb;
	struct drop_key key;
	struct tuple outer; /* of a tunnel, or of the ICMP error itself; proto 0: none */
	__u32 ifindex;
	__u32 len;
	__u32 seq;
	__u32 ack;
	__u32 icmp_rest; /* as on the wire */
	__u32 depth;	 /* entries of stack that are valid */
	__u16 ip_id;
	__u8 tcp_flags;
	__u8 later; /* a later fragment */
	__u16 tracked; /* enum tracked; 0 for what came in */
	__u16 pad;
	char device[16];
	__u64 stack[STACK_DEPTH];
};
_Static_assert(sizeof(struct sample) == 328, "read by agent/probes/layout.py");

/* A packet as it was looked at. */
struct look {
	struct packet p;
	struct tuple outer;
	struct place place;
	__u32 len;
	__u32 icmp_rest;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 quoted; /* the packet is one that an ICMP error quotes */
	__u8 pad;
};

BPF_ARRAY(settings, __u64, SETTING_MAX);
BPF_TABLE("percpu_hash", struct drop_key, struct tally, counts0, FLOW_ENTRIES);
BPF_TABLE("percpu_hash", struct drop_key, struct tally, counts1, FLOW_ENTRIES);
BPF_TABLE("percpu_hash", struct drop_key, struct tally, coarse0, COARSE_ENTRIES);
BPF_TABLE("percpu_hash", struct drop_key, struct tally, coarse1, COARSE_ENTRIES);
BPF_TABLE("lru_hash", struct drop_key, __u64, sampled, SAMPLED_ENTRIES);
BPF_PERCPU_ARRAY(sample_budget, struct budget, 1);
BPF_PERCPU_ARRAY(looks, struct look, 4); /* one a program: a softirq may interrupt another program */
BPF_RINGBUF_OUTPUT(ring, RING_PAGES);

static __always_inline __u64 setting(int which)
{
	__u64 *value = settings.lookup(&which);
	return value ? *value : 0;
}

static __always_inline int is_filtered(void)
{
	int zero = 0;
	struct config *cfg = config.lookup(&zero);
	return cfg && cfg->filtered;
}

static __always_inline int wanted(struct tuple *t)
{
	return !is_filtered() || matches(t);
}

/* Counts in the active table. Returns whether the key is new there. */
static __always_inline int tally(struct drop_key *key, __u32 len, __u32 packets)
{
	struct tally first = {.packets = packets, .bytes = len};
	int active = setting(SETTING_ACTIVE);
	struct tally *found = active ? counts1.lookup(key) : counts0.lookup(key);

	if (found) {
		found->packets += packets;
		found->bytes += len;
		return 0;
	}
	if (!(active ? counts1.update(key, &first) : counts0.update(key, &first)))
		return 1;
	count(ACCOUNT_FLOWS_CREATED);
	__builtin_memset(key->t.saddr, 0, 16);
	key->t.sport = 0;
	found = active ? coarse1.lookup(key) : coarse0.lookup(key);
	if (found) {
		found->packets += packets;
		found->bytes += len;
	} else if (active ? coarse1.update(key, &first) : coarse0.update(key, &first)) {
		count(ACCOUNT_FLOWS_FULL);
	}
	return 0;
}

/* Whether this key's packet shall be reported: the first, and now and then one more. */
static __always_inline int may_sample(struct drop_key *key, __u64 now)
{
	int zero = 0;
	__u64 *last = sampled.lookup(key);
	struct budget *b = sample_budget.lookup(&zero);

	if (!b || (last && now - *last < SAMPLE_NS))
		return 0;
	if (b->second != now >> 30) {
		b->second = now >> 30;
		b->used = 0;
	}
	if (b->used >= SAMPLES)
		return 0;
	b->used++;
	sampled.update(key, &now);
	return 1;
}

/* Reads the packet of an skb, as deep as it is of interest. Returns 0 where it is no IP packet that is wanted. */
static __always_inline int look(struct look *s, __u64 skb, int received, int errors_only)
{
	struct skb_head sh;
	struct headers h;
	int icmp_error = 0;

	__u64 l3 = ip_header(&sh, skb, received);
	__u64 end = sh.head + sh.tail;
	if (!l3 || !read_headers(&h, l3) || !clip(&h, l3, end))
		return 0;
	__u64 inner = h.later ? 0 : inner_of(&h, l3, &icmp_error);
	if (inner + 28 > end)
		inner = icmp_error = 0;
	if (errors_only && !icmp_error)
		return 0;
	int filtered = is_filtered();
	if (filtered && !inner && !may_match(&h))
		return 0;
	parse(&s->p, &h, l3);
	s->outer.proto = 0;
	s->quoted = 0;
	s->icmp_type = s->p.icmp_type;
	s->icmp_code = s->p.icmp_code;
	s->icmp_rest = s->p.icmp_rest;
	int is_wanted = !filtered || matches(&s->p.t);
	if (inner && (icmp_error || is_tunnel(skb, &s->p.t)) && read_headers(&h, inner) && clip(&h, inner, end) && !h.later) {
		s->outer = s->p.t;
		parse(&s->p, &h, inner);
		if (!filtered || matches(&s->p.t)) {
			s->quoted = icmp_error;
			return 1;
		}
		s->p.t = s->outer; /* no TCP: nothing else of the packet is reported */
		s->p.seq = s->p.ack = s->p.tcp_flags = 0;
		s->outer.proto = 0;
	}
	return is_wanted && !errors_only;
}

static __always_inline void report(void *ctx, struct look *s, struct drop_key *key, __u64 skb, __u64 now, int with_stack)
{
	count(ACCOUNT_EMITTED);
	struct sample *e = ring.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count(ACCOUNT_RING_FULL);
		return;
	}
	e->t_ns = now;
	e->skb = skb;
	e->key = *key;
	e->outer = s->outer;
	e->ifindex = s->place.ifindex;
	e->len = s->len;
	e->seq = s->p.seq;
	e->ack = s->p.ack;
	e->icmp_rest = s->icmp_rest;
	e->ip_id = s->p.ip_id;
	e->tcp_flags = s->p.tcp_flags;
	e->later = s->p.later;
	e->tracked = with_stack ? tracked_as(skb) : TRACKED_UNKNOWN;
	e->pad = 0;
	__builtin_memcpy(e->device, s->place.device, 16);
	e->depth = 0;
	if (with_stack) {
		long size = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
		e->depth = size > 0 ? (__u32)size / 8 : 0;
	}
	ring.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* Where the packet is; 0 where that is another node's namespace. */
static __always_inline int place_of(struct look *s, __u64 skb, __u64 receiver)
{
	struct skb_place at;

	READ_VIEW(at, skb_place, skb);
	s->len = at.len;
	find_place(&s->place, skb, at.dev, receiver);
	return is_own(s->place.netns);
}

int on_free(struct bpf_raw_tracepoint_args *ctx) /* skb:kfree_skb(skb, location, reason) */
{
	__u64 skb = ctx->args[0];
	int slot = 0;
	__u32 reason = reason_of(ctx);

	if (is_harmless(reason))
		return 0;
	struct look *s = looks.lookup(&slot);
	if (!s)
		return 0;
	struct drop_key key = {.location = ctx->args[1], .reason = reason, .kind = KIND_DROP};
	if (look(s, skb, 0, 0)) {
		key.t = s->p.t;
		key.kind = s->quoted ? KIND_ICMP_DROP : KIND_DROP;
		key.icmp_type = s->icmp_type;
		key.icmp_code = s->icmp_code;
		if (!s->quoted && s->p.t.proto == P_TCP && (s->p.tcp_flags & TCP_SYN))
			key.flags = s->p.tcp_flags & TCP_ACK ? FLAG_ANSWERING : FLAG_OPENING;
	} else if (is_filtered() || !setting(SETTING_EVERYTHING)) {
		return 0;
	} else {
		s->outer.proto = s->icmp_type = s->icmp_code = s->p.tcp_flags = 0;
		s->p.seq = s->p.ack = s->icmp_rest = s->p.ip_id = 0;
	}
	if (!place_of(s, skb, receiving_socket(ctx)))
		return 0;
	key.netns = s->place.netns;
	if (!tally(&key, s->len, 1))
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (may_sample(&key, now))
		report(ctx, s, &key, skb, now, 1);
	return 0;
}

/* Whether a packet is a whole one of TCP or UDP, and so no ICMP error, as most are. Told by a few loads, where loads are cheap; 0
 * where it is not known. */
static __always_inline int is_no_error(__u64 skb)
{
#ifdef TYPED_LOADS
	struct skb_head sh;
	struct glance g;

	return glance_at(&g, &sh, skb, 1) && !(g.fragment & 0xff3f) && (g.proto == P_TCP || g.proto == P_UDP);
#else
	return 0;
#endif
}

int on_receive(struct bpf_raw_tracepoint_args *ctx) /* net:netif_receive_skb: ICMP errors that came in */
{
	__u64 skb = ctx->args[0];
	int slot = 1;

	if (is_no_error(skb))
		return 0;
	struct look *s = looks.lookup(&slot);
	if (!s || !look(s, skb, 1, 1) || !place_of(s, skb, 0))
		return 0;
	struct drop_key key = {.kind = KIND_ICMP, .netns = s->place.netns};
	key.t = s->p.t;
	key.icmp_type = s->icmp_type;
	key.icmp_code = s->icmp_code;
	if (!tally(&key, s->len, 1))
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (may_sample(&key, now))
		report(ctx, s, &key, skb, now, 0);
	return 0;
}

static __always_inline void turn(struct tuple *t)
{
	struct tuple was = *t;
	__builtin_memcpy(t->saddr, was.daddr, 16);
	__builtin_memcpy(t->daddr, was.saddr, 16);
	t->sport = was.dport;
	t->dport = was.sport;
}

static __always_inline void tally_socket(struct drop_key *key, __u32 packets)
{
	if (wanted(&key->t) && is_own(key->netns))
		tally(key, 0, packets);
}

/* Fills in the reset that answers a packet, as far as that is wanted: else returns 0. `sk` may be null. */
static __always_inline int answers(struct drop_key *key, struct look *s, __u64 skb, __u64 sk)
{
	if (!skb || !look(s, skb, 0, 0))
		return 0;
	place_of(s, skb, sk);
	key->t = s->p.t;
	turn(&key->t);
	key->netns = s->place.netns;
	if ((s->p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		key->flags = FLAG_OPENING;
	return 1;
}

/* tcp:tcp_send_reset(sk, skb, reason). `skb` is what provoked the reset; without it, the socket's owner wanted it. */
int on_send_reset(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 sk = ctx->args[0], skb = ctx->args[1];
	struct drop_key key = {.kind = KIND_RESET_SENT};
	int slot = 2;
	struct look *s = looks.lookup(&slot);

	if (!s)
		return 0;
#if ARGS_tcp_send_reset >= 3
	key.reason = ctx->args[2];
#endif
	if (answers(&key, s, skb, sk)) {
		/* all of it is filled in */
	} else if (sk) {
		key.flags = FLAG_ACTIVE;
		socket_tuple(&key.t, sk);
		key.netns = socket_netns(sk);
		if (!key.t.sport) { /* the socket has given its port back already, and remembers it */
			struct inet_port port = {};
			READ_VIEW(port, inet_port, sk);
			key.t.sport = be16((__u8 *)&port.inet_sport);
		}
	} else {
		return 0;
	}
	tally_socket(&key, 1);
	return 0;
}

#if ARGS_tcp_send_reset < 3 /* else the tracepoint tells all of them */
#define RTN_LOCAL 2 /* include/uapi/linux/rtnetlink.h */
#define RTF_LOCAL 0x80000000u /* include/uapi/linux/ipv6_route.h */
#define TCP_TIME_WAIT 6
#define TCP_NEW_SYN_RECV 12
#define OPTION_END 0 /* options of TCP */
#define OPTION_NOP 1
#define OPTION_MD5 19
#define OPTION_AO 29

static __always_inline int is_full(__u64 sk)
{
	struct sock_tuple k = {};

	READ_VIEW(k, sock_tuple, sk);
	return k.__sk_common_skc_state != TCP_TIME_WAIT && k.__sk_common_skc_state != TCP_NEW_SYN_RECV;
}

/* Whether the route by which a packet came ends here, and is none of a broadcast or a group. */
static __always_inline int is_to_own_address(__u64 skb)
{
	struct skb_head sh;
	struct skb_route dst = {};
	struct route4 ipv4 = {};

	READ_VIEW(sh, skb_head, skb);
	READ_VIEW(dst, skb_route, skb);
	__u64 route = dst._skb_refdst & ~1ull; /* SKB_DST_PTRMASK */
	if (sh.protocol == 0x0008) {
		READ_VIEW(ipv4, route4, route);
		return ipv4.rt_type == RTN_LOCAL;
	}
#ifdef HAS_route6
	struct route6 ipv6 = {};
	READ_VIEW(ipv6, route6, route);
	return (ipv6.rt6i_flags & RTF_LOCAL) != 0;
#else
	return 0;
#endif
}

static __always_inline int is_signed(struct packet *p)
{
	__u64 option = p->l3 + p->l4_offset + 20, end = p->l3 + p->l4_offset + p->tcp_doff;
	__u8 kind_and_length[2];

	for (int i = 0; i < 40 && option < end; i++) {
		if (bpf_probe_read_kernel(kind_and_length, 2, (void *)option) || kind_and_length[0] == OPTION_END)
			return 0;
		if (kind_and_length[0] == OPTION_MD5 || kind_and_length[0] == OPTION_AO)
			return 1;
		option += kind_and_length[0] == OPTION_NOP ? 1 : kind_and_length[1];
	}
	return 0;
}

/* The beginning of tcp_v4_send_reset(sk, skb) and tcp_v6_send_reset(sk, skb): resets without a full socket. The functions
 * return without an answer where the packet is a reset itself, or came to a broadcast or a group. A signed packet is answered only
 * where somebody here has its key, which is not to be seen: it is left out. */
int on_reset_without_socket(struct arguments *ctx)
{
	__u64 sk = ctx->first, skb = ctx->second;
	struct drop_key key = {.kind = KIND_RESET_SENT};
	int slot = 3;
	struct look *s = looks.lookup(&slot);

	if (!s || (sk ? is_full(sk) : !is_to_own_address(skb)) || !answers(&key, s, skb, sk))
		return 0;
	if (!(s->p.tcp_flags & TCP_RST) && !is_signed(&s->p))
		tally_socket(&key, 1);
	return 0;
}
#endif

int on_receive_reset(struct bpf_raw_tracepoint_args *ctx) /* tcp:tcp_receive_reset(sk) */
{
	struct drop_key key = {.kind = KIND_RESET_RECEIVED};

	if (socket_tuple(&key.t, ctx->args[0]) == TCP_SYN_SENT)
		key.flags = FLAG_OPENING;
	turn(&key.t);
	key.netns = socket_netns(ctx->args[0]);
	tally_socket(&key, 1);
	return 0;
}

int on_retransmit(struct bpf_raw_tracepoint_args *ctx) /* tcp:tcp_retransmit_skb(sk, skb) */
{
	struct drop_key key = {.kind = KIND_RETRANSMIT};
	struct timeouts timeouts = {};

	key.reason = socket_tuple(&key.t, ctx->args[0]);
	key.netns = socket_netns(ctx->args[0]);
	READ_VIEW(timeouts, timeouts, ctx->args[0]);
	/* Its timer has gone off so often since anything was acknowledged: the tally's bytes count these segments. */
	__u32 in_vain = timeouts.icsk_retransmits >= IN_VAIN;
	__u32 segments = segments_of(ctx->args[1]);
	if (wanted(&key.t) && is_own(key.netns))
		tally(&key, in_vain ? segments : 0, segments);
	return 0;
}

int on_state(struct bpf_raw_tracepoint_args *ctx) /* sock:inet_sock_set_state(sk, old, new) */
{
	struct drop_key key = {.kind = KIND_ESTABLISHED};

	if (ctx->args[1] != 3 || ctx->args[2] != 1) /* TCP_SYN_RECV to TCP_ESTABLISHED: at the server */
		return 0;
	socket_tuple(&key.t, ctx->args[0]);
	turn(&key.t);
	key.t.sport = 0; /* one entry for all connections of a client */
	key.netns = socket_netns(ctx->args[0]);
	tally_socket(&key, 1);
	return 0;
}
