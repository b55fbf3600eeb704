/* SPDX-License-Identifier: Apache-2.0
 *
 * The path of packets: every device that a matching packet passes, in and out, across network namespaces, and the
 * place where the kernel frees it. Packets that carry news become events; the rest is counted per tuple and device.
 *
 * An skb that matched is remembered by its address together with what NAT leaves alone, so that it is followed even
 * where NAT gave it an address that no filter names (a rule that still points at a pod that is gone).
 */
#define FOLLOWED 4096
#define HOP_BUCKETS 32
#define GAP_BUCKETS 112
#define FEWEST_KEPT 4
#define ALL_KEPT 65536
#define FIRST_DATAGRAMS 4 /* of each flow and CPU, reported one by one */

enum event_kind { EVENT_PACKET = 1, EVENT_DROP = 2, EVENT_ICMP = 3, EVENT_RETRANSMIT = 4, EVENT_ICMP_DROP = 5 };

struct packet_event {
	__u64 t_ns;
	__u64 skb;
	struct tuple t;
	struct tuple outer; /* of a tunnel; proto 0: none. For EVENT_ICMP: addresses of the error itself */
	__u32 netns;
	__u32 ifindex;
	__u32 seq;
	__u32 ack;
	__u32 len;
	__u32 payload;
	__u32 sig;
	__u16 ip_id;
	__u8 kind;
	__u8 point;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 state; /* TCP state of a retransmitting socket */
	__u32 icmp_rest; /* as on the wire */
	char device[16];
	__u32 cpu;
	__u16 later; /* a later fragment */
	__u8 ttl;    /* or hop limit */
	__u8 pad;
};
_Static_assert(sizeof(struct packet_event) == 160, "read by agent/probes/layout.py");

struct drop_event {
	struct packet_event p;
	struct end end;
};
_Static_assert(sizeof(struct drop_event) == 336, "read by agent/probes/layout.py");

struct followed {
	__u64 skb;
	__u64 t_ns;
	__u32 sig;
	__u32 pad;
};

struct flow_key {
	struct tuple t; /* its first byte of padding: the point */
	__u64 dev; /* address of the net_device: its name and namespace are read once, when the flow is new there */
};

enum ended { ENDED_FIN = 1, ENDED_RST = 2 };
/* What kept a TCP that sends data here: nothing unsent or unacknowledged, data on its way, the receiver's window, or its send
 * buffer; enum tcp_chrono, counted from HELD_NOT. */
enum held { HELD_UNKNOWN = 0, HELD_NOT = 1, HELD_BUSY = 2, HELD_WINDOW = 3, HELD_BUFFER = 4 };
#if defined(HAS_sock_kind) && defined(HAS_tcp_chrono) && defined(HAS_tcp_heard)
#define KNOWS_SENDER
#endif
#define CHRONO_TYPE 3 /* tcp_sock.chrono_type has two bits, the lowest of their byte */
enum whose { WHOSE_UNKNOWN = 0, WHOSE_OWN = 1, WHOSE_OTHER = 2 };

struct flow {
	__u64 packets;
	__u64 bytes;
	__u64 began_ns; /* when the flow came into the table, by the CPU that put it there; 0 on the others */
	__u64 closed_ns; /* when its sender last said that it takes no more data (a window of 0), as this CPU saw it */
	__u16 data_seen;
	__u16 ended; /* enum ended, of what this CPU has seen */
	__u32 whose; /* enum whose: each CPU has a value of its own, and looks it up once */
	__u32 netns;
	__u32 ifindex;
	char device[16];
	__u32 hop_ns[HOP_BUCKETS]; /* element i: times in [2^i, 2^(i+1)) ns */
};

/* Data of one TCP flow at one place, each byte once however often it was sent. Of all CPUs: what is between two segments
 * is seen by one. */
struct stream {
	__u64 bytes;
	__u64 first_ns;
	__u64 second_ns; /* when the first data that was not first came; 0: not yet */
	__u64 last_ns;
	__u64 silence_ns; /* the longest time without anything new, and when it began */
	__u64 silence_at_ns;
	__u64 silence_asked_ns; /* when data had last passed the other way when it ended; 0: never */
	__u64 silence_closed_ns; /* and when its receiver had last said that it takes no more, as far as one CPU knows */
	__u64 first_asked_ns;	/* and when the first data came */
	__u32 silence_ticks;	/* its length in jiffies */
	__u32 held_ticks;	/* for how long at its end what `held` says had kept the sending TCP */
	__u32 heard_ticks;	/* since an ACK had last come to it */
	__u32 held;		/* enum held; HELD_UNKNOWN where the sender's socket is not here */
	__u32 next;		/* the sequence number behind the last byte */
	__u32 last_tick;	/* last_ns in jiffies */
	__u32 gaps[GAP_BUCKETS]; /* element 4 * l + s: times in [2^l * (1 + s/4), 2^l * (1 + (s+1)/4)) us */
	__u32 gap_us[GAP_BUCKETS]; /* the sum of these times, in us */
};

BPF_TABLE("lru_hash", struct flow_key, struct stream, streams, STREAM_ENTRIES);
BPF_PERCPU_ARRAY(fresh_stream, struct stream, 1); /* its gaps stay zero */
BPF_PERCPU_ARRAY(fresh_flow, struct flow, 1);	  /* so does all of it but its time */
BPF_ARRAY(followed, struct followed, FOLLOWED);
BPF_TABLE("lru_percpu_hash", struct flow_key, struct flow, flows, FLOW_ENTRIES);
BPF_TABLE("lru_hash", struct way_key, struct way, ways, WAYS);
BPF_RINGBUF_OUTPUT(ring, RING_PAGES);

/* How many connections in 65536 are left out, the same on all nodes (is_left_out_port). `soft` events in a second and CPU
 * halve the number of the others at once, and so do each as many more; user space sets it by what was spent. */
struct sampling {
	__u32 left_out;
	__u32 soft; /* 0: never changed here */
};
BPF_ARRAY(sampling, struct sampling, 1);

/* A packet at a place. */
struct sighting {
	struct packet p;
	struct tuple outer;
	__u64 skb;
	__u64 dev;
	__u64 receiver; /* of a drop: the socket that was to get it */
	__u64 now;
	__u64 l3;	/* address of the outermost IP header */
	__u32 netns;
	__u32 ifindex;
	__u32 len;	/* skb->len: bytes from skb->data to the end */
	__u32 headroom; /* bytes from the outermost IP header to skb->data; negative where data lies before it */
	__u32 payload;
	__u32 point;
	__u32 icmp_rest; /* of an error */
	__u8 icmp_type;
	__u8 icmp_code;
	__u16 pad;
	char device[16];
	struct flow_key key; /* of its flow here; see flow_of */
#ifdef KNOWS_SENDER
	struct skb_sk sk; /* what note_sender reads: too much for the stack */
	struct sock_kind kind;
	struct tcp_chrono chrono;
	struct tcp_heard heard;
#endif
};
BPF_PERCPU_ARRAY(scratch, struct sighting, 3); /* one a program: a softirq may interrupt another program */

static __always_inline struct followed *follow_slot(__u64 skb)
{
	__u32 slot = (skb >> 8) % FOLLOWED;
	return followed.lookup(&slot);
}

/* Device and namespace of the packet. Returns 0 if it is not this node's. */
static __always_inline int locate(struct sighting *s)
{
	struct place place;

	find_place(&place, s->skb, s->dev, s->receiver);
	s->netns = place.netns;
	s->ifindex = place.ifindex;
	__builtin_memcpy(s->device, place.device, 16);
	return is_own(s->netns);
}

static __always_inline void fill(struct packet_event *e, struct sighting *s, __u8 kind)
{
	e->t_ns = s->now;
	e->skb = s->skb;
	e->t = s->p.t;
	e->outer = s->outer;
	e->netns = s->netns;
	e->ifindex = s->ifindex;
	e->seq = s->p.seq;
	e->ack = s->p.ack;
	e->len = s->len;
	e->payload = s->payload;
	e->sig = s->p.sig;
	e->ip_id = s->p.ip_id;
	e->kind = kind;
	e->point = s->point;
	e->tcp_flags = s->p.tcp_flags;
	e->icmp_type = s->icmp_type;
	e->icmp_code = s->icmp_code;
	e->state = 0;
	e->icmp_rest = s->icmp_rest;
	__builtin_memcpy(e->device, s->device, 16);
	e->cpu = bpf_get_smp_processor_id();
	e->later = s->p.later;
	e->ttl = s->p.ttl;
	e->pad = 0;
}

/* The client's port, which a translation of the destination leaves alone: the one that no filter names, else the higher. */
static __always_inline __u16 client_port(__u16 sport, __u16 dport, int from_server, int to_server)
{
	if (to_server != from_server)
		return to_server ? sport : dport;
	return sport > dport ? sport : dport;
}

/* By a hash of 16 bits, those that vary most first. */
static __always_inline int is_left_out_port(__u16 port)
{
	int zero = 0;
	struct sampling *s = sampling.lookup(&zero);
	__u32 h = (port * 0x9e3779b1u) >> 16;

	if (!s || !s->left_out)
		return 0;
	h = (h & 0x5555) << 1 | (h >> 1 & 0x5555);
	h = (h & 0x3333) << 2 | (h >> 2 & 0x3333);
	h = (h & 0x0f0f) << 4 | (h >> 4 & 0x0f0f);
	return ((h & 0xff) << 8 | h >> 8) >= ALL_KEPT - s->left_out;
}

static __always_inline int is_left_out(struct tuple *t)
{
	if (!has_ports(t->proto))
		return 0;
	return is_left_out_port(client_port(t->sport, t->dport, port_wanted(t->sport), port_wanted(t->dport)));
}

/* After an event was granted: many in one second are a reason to follow fewer connections. */
static __always_inline void press(void)
{
	int zero = 0;
	struct sampling *s = sampling.lookup(&zero);
	struct budget *b = budgets.lookup(&zero);

	if (s && b && s->soft && b->used % s->soft == 0 && s->left_out <= ALL_KEPT - 2 * FEWEST_KEPT)
		s->left_out += (ALL_KEPT - s->left_out) / 2;
}

static __always_inline void emit(struct sighting *s, __u8 kind)
{
	if (!may_emit(s->now))
		return;
	press();
	struct packet_event *e = ring.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count(ACCOUNT_RING_FULL);
		return;
	}
	fill(e, s, kind);
	ring.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static __always_inline __u32 log2_bucket(__u64 v)
{
	__u32 r = 0;
	if (v >> 31)
		return 31;
	if (v >> 16) { v >>= 16; r += 16; }
	if (v >> 8) { v >>= 8; r += 8; }
	if (v >> 4) { v >>= 4; r += 4; }
	if (v >> 2) { v >>= 2; r += 2; }
	return (r + (v >> 1)) & (HOP_BUCKETS - 1);
}

static __always_inline __u32 gap_bucket(__u64 ns)
{
	__u64 us = ns / 1000;
	__u32 l = log2_bucket(us), quarter = 0;

	if (l >= 2)
		quarter = (us >> (l - 2)) & 3;
	l = l * 4 + quarter;
	return l < GAP_BUCKETS ? l : GAP_BUCKETS - 1;
}

/* The packet's key in the tables of flows: too large for the stack. */
static __always_inline struct flow_key *flow_of(struct sighting *s)
{
	s->key.t = s->p.t;
	s->key.t.pad[0] = s->point;
	s->key.dev = s->dev;
	return &s->key;
}

static __always_inline void turn(struct flow_key *key)
{
	__u64 *from = (__u64 *)key->t.saddr, *to = (__u64 *)key->t.daddr, first = from[0], second = from[1];
	__u16 port = key->t.sport;

	from[0] = to[0];
	from[1] = to[1];
	to[0] = first;
	to[1] = second;
	key->t.sport = key->t.dport;
	key->t.dport = port;
	key->t.pad[0] ^= POINT_RX ^ POINT_TX;
}

/* When data last passed this device the other way; 0: never. */
static __always_inline __u64 asked_at(struct flow_key *key)
{
	turn(key);
	struct stream *back = streams.lookup(key);
	__u64 last_ns = back ? back->last_ns : 0;
	turn(key);
	return last_ns;
}

/* When the other way was last said to take no more data, as this CPU saw it. */
static __always_inline __u64 closed_at(struct flow_key *key)
{
	turn(key);
	struct flow *back = flows.lookup(key);
	__u64 closed_ns = back ? back->closed_ns : 0;
	turn(key);
	return closed_ns;
}

/* What kept the TCP that sends the data which ends the longest silence so far. */
static __always_inline void note_sender(struct sighting *s, struct stream *d, __u32 tick)
{
	d->silence_ticks = tick - d->last_tick;
	d->held = HELD_UNKNOWN;
#ifdef KNOWS_SENDER
	if (s->point != POINT_TX)
		return;
	READ_VIEW(s->sk, skb_sk, s->skb);
	if (!s->sk.sk)
		return;
	READ_VIEW(s->kind, sock_kind, s->sk.sk);
	if (s->kind.sk_type != SOCK_STREAM || s->kind.sk_protocol != P_TCP)
		return; /* a raw socket may send TCP, too */
	READ_VIEW(s->chrono, tcp_chrono, s->sk.sk);
	READ_VIEW(s->heard, tcp_heard, s->sk.sk);
	d->held = HELD_NOT + (s->chrono.chrono_type & CHRONO_TYPE);
	d->held_ticks = tick - s->chrono.chrono_start;
	d->heard_ticks = tick - s->heard.rcv_tstamp;
#endif
}

/* Adds a segment to its flow's data here, as far as it brings anything new. */
static __always_inline void count_stream(struct sighting *s, struct flow_key *key)
{
	__u32 end = s->p.seq + s->payload + !!(s->p.tcp_flags & TCP_SYN), tick = bpf_jiffies64();
	struct stream *d = streams.lookup(key);

	if (!d) {
		int slot = 0;
		struct stream *fresh = fresh_stream.lookup(&slot); /* too large for the stack */
		if (!fresh)
			return;
		fresh->bytes = s->payload;
		fresh->first_ns = fresh->last_ns = s->now;
		fresh->next = end;
		fresh->last_tick = tick;
		fresh->first_asked_ns = asked_at(key);
		streams.update(key, fresh);
		return;
	}
	__s32 more = end - d->next;
	if (more <= 0)
		return;
	__u64 silence = s->now > d->last_ns ? s->now - d->last_ns : 0;
	if (silence > d->silence_ns) {
		d->silence_ns = silence;
		d->silence_at_ns = d->last_ns;
		d->silence_asked_ns = asked_at(key);
		d->silence_closed_ns = closed_at(key);
		note_sender(s, d, tick);
	}
	__u32 bucket = gap_bucket(silence);
	if (bucket < GAP_BUCKETS) {
		d->gaps[bucket]++;
		d->gap_us[bucket] += silence / 1000;
	}
	if (!d->second_ns)
		d->second_ns = s->now;
	d->bytes += more;
	d->next = end;
	d->last_ns = s->now;
	d->last_tick = tick;
}

/* Counts the packet; returns whether it is the first data (or one of the first datagrams) here. */
static __always_inline int count_flow(struct sighting *s, __u64 since)
{
	struct flow_key *key = flow_of(s);
	struct flow *f = flows.lookup(key);
	if (!f) {
		int slot = 0;
		struct flow *fresh = fresh_flow.lookup(&slot);
		if (!fresh || !locate(s))
			return 0; /* another node's on this kernel */
		fresh->began_ns = s->now;
		if (!flows.insert(key, fresh)) /* another CPU may have come first */
			count(ACCOUNT_FLOWS_CREATED);
		f = flows.lookup(key);
		if (!f) {
			count(ACCOUNT_FLOWS_FULL);
			return 1;
		}
	}
	if (!f->whose) {
		f->whose = locate(s) ? WHOSE_OWN : WHOSE_OTHER;
		f->netns = s->netns;
		f->ifindex = s->ifindex;
		__builtin_memcpy(f->device, s->device, 16);
	}
	if (f->whose != WHOSE_OWN)
		return 0;
	f->packets++;
	f->bytes += s->len;
	if (since)
		f->hop_ns[log2_bucket(since)]++;
	if (s->p.t.proto != P_TCP)
		return f->packets <= FIRST_DATAGRAMS;
	if (s->p.closed)
		f->closed_ns = s->now;
	if (s->payload)
		count_stream(s, key);
	if (!s->payload || f->data_seen || s->p.tcp_flags & TCP_SYN)
		return 0;
	f->data_seen = 1;
	return 1;
}

/* A SYN opens a connection here: what was counted of one before it with the same tuple is not its own. */
static __always_inline void begin_flow(struct sighting *s)
{
	struct flow_key *key = flow_of(s);
	struct flow *f = flows.lookup(key);
	if (!f)
		return;
	f->data_seen = f->ended = 0;
	f->closed_ns = 0;
	streams.delete(key);
}

/* A FIN or RST was seen: user space takes the flow out of the table once nothing more comes. */
static __always_inline void end_flow(struct sighting *s)
{
	struct flow_key *key = flow_of(s);
	struct flow *f = flows.lookup(key);
	if (f)
		f->ended |= s->p.tcp_flags & TCP_RST ? ENDED_RST : ENDED_FIN;
}

static __always_inline __u32 payload_of(struct sighting *s)
{
	__u32 headers = s->p.l4_offset + (s->p.l3 - s->l3);
	if (s->p.t.proto == P_TCP)
		headers += s->p.tcp_doff;
	else if (s->p.t.proto == P_UDP)
		headers += 8;
	else if (s->p.t.proto == P_SCTP)
		headers += 12;
	__s32 rest = s->headroom + s->len - headers;
	return rest > 0 ? rest : 0;
}

/* Whether the packet of an skb is on a device of this node's, where several nodes share the kernel. */
static __always_inline int is_on_own_device(__u64 skb)
{
	__u32 netns, ifindex;
	int zero = 0;
	struct config *cfg = config.lookup(&zero);

	if (!cfg || !cfg->own_netns)
		return 1;
	return device_of(skb, &netns, &ifindex) && own.lookup(&netns);
}

/* Notes where a SYN is sent, whether its connection is followed or not: first as its socket sends it, then at each device that the
 * node sends it to. A SYN of a socket elsewhere is none that anybody asks for. */
static __always_inline void note_way(__u64 skb, struct tuple *t, __u32 seq)
{
	struct way_key key = {.seq = seq, .sport = t->sport};
	struct way *noted = ways.lookup(&key), way = {.dport = t->dport};
	struct skb_sk sk = {};

	if (noted) {
		if ((noted->dport != t->dport || !same_address(noted->daddr, t->daddr)) && is_on_own_device(skb)) {
			__builtin_memcpy(noted->daddr, t->daddr, 16);
			noted->dport = t->dport;
		}
		return;
	}
	READ_VIEW(sk, skb_sk, skb);
	if (!sk.sk || !is_on_own_device(skb) || !matches(t))
		return;
	__builtin_memcpy(way.daddr, t->daddr, 16);
	ways.update(&key, &way);
}

/* The same for the SYN of a connection that is left out, of which no more is read than that takes. */
static __always_inline void note_way_left_out(__u64 skb, struct ports *ports)
{
	struct tuple t = {.sport = ports->sport, .dport = ports->dport, .proto = P_TCP};
	__u32 seq;

	read_addresses(&t, ports);
	TYPED_LOAD(seq, 32, TYPED(ports->l4, BTF_in6_addr), 4);
	note_way(skb, &t, __builtin_bswap32(seq));
}

/* Parses the packet of an skb into the program's slot of `scratch`. Returns what it is; 0 where it is of no interest:
 * most packets end here. On a match inside a tunnel the inner packet is the packet and `outer` the tunnel; for an ICMP
 * error the packet is the one that it quotes, and `outer` the error itself. */
static __always_inline int interesting(struct sighting **slot, __u64 skb, __u32 point)
{
	struct skb_head sh;
	struct headers h;
	struct sighting *s = 0;
	int icmp_error = 0;

	struct ports ports = {};
	int other = is_other_tcp(skb, point == POINT_RX, &ports);
	if (!other && ports.known &&
	    is_left_out_port(client_port(ports.sport, ports.dport, ports.from_server, ports.to_server))) {
		if (point == POINT_TX && opens(&ports))
			note_way_left_out(skb, &ports);
		return 0;
	}
	struct followed *known = follow_slot(skb);
	if (other && known && known->skb != skb)
		return 0;
	__u64 l3 = ip_header(&sh, skb, point == POINT_RX);
	if (!l3)
		return 0;
	__u64 outer_l3 = l3;
#pragma nounroll
	for (int depth = 0; depth < 2; depth++) {
		__u64 end = sh.head + sh.tail;
		if (!read_headers(&h, l3) || !clip(&h, l3, end))
			return 0;
		__u64 inner = depth || h.later ? 0 : inner_of(&h, l3, &icmp_error);
		if (inner + 28 > end)
			inner = icmp_error = 0;
		int follows = 0;
		if (!depth) {
			follows = known && known->skb == skb && known->sig == signature(&h);
		}
		if (!follows && !inner && !may_match(&h))
			return 0;
		s = scratch.lookup((int *)&point);
		if (!s)
			return 0;
		if (!depth)
			s->outer.proto = 0;
		parse(&s->p, &h, l3);
		/* An error to or from a filtered address is about the packet that it quotes. */
		if (follows || ((depth || !icmp_error) && matches(&s->p.t))) {
			icmp_error = icmp_error && depth;
			break;
		}
		if (!inner || (!icmp_error && !is_tunnel(skb, &s->p.t)))
			return 0;
		s->outer = s->p.t;
		s->icmp_type = s->p.icmp_type;
		s->icmp_code = s->p.icmp_code;
		s->icmp_rest = s->p.icmp_rest;
		l3 = inner;
	}
	if (point == POINT_TX && !icmp_error && s->p.t.proto == P_TCP && (s->p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		note_way(skb, &s->p.t, s->p.seq);
	if (is_left_out(&s->p.t))
		return 0;
	struct skb_place place;
	READ_VIEW(place, skb_place, skb);
	s->skb = skb;
	s->dev = place.dev;
	s->len = place.len;
	s->l3 = outer_l3;
	s->headroom = sh.data - outer_l3;
	s->payload = payload_of(s);
	s->point = point;
	s->receiver = 0;
	s->now = bpf_ktime_get_ns();
	*slot = s;
	return icmp_error ? EVENT_ICMP : EVENT_PACKET;
}

/* What the sending socket asked for, where the node's own rules have translated that already: into `outer`, marked by its
 * padding. Of TCP the socket in SYN_SENT, of UDP a connected one. */
static __always_inline void ask_socket(struct sighting *s)
{
	struct skb_sk sk = {};
	__u8 proto = s->p.t.proto;

	if (proto == P_TCP ? (s->p.tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN : proto != P_UDP)
		return;
	READ_VIEW(sk, skb_sk, s->skb);
	if (!sk.sk)
		return;
	__u8 state = socket_tuple(&s->outer, sk.sk);
	s->outer.proto = proto;
	s->outer.pad[0] = 1;
	int same = s->outer.dport == s->p.t.dport && same_address(s->outer.daddr, s->p.t.daddr);
	if (same || !s->outer.dport || !s->outer.sport || (proto == P_TCP && state != TCP_SYN_SENT))
		s->outer.proto = 0;
}

static __always_inline int seen(__u64 skb, __u32 point)
{
	struct sighting *s;
	int kind = interesting(&s, skb, point);
	if (!kind)
		return 0;
	__u64 since = 0;
	struct followed *f = follow_slot(skb);
	if (f) {
		if (f->skb == skb && f->sig == s->p.sig)
			since = s->now - f->t_ns;
		f->skb = skb;
		f->sig = s->p.sig;
		f->t_ns = s->now;
	}
	__u8 flags = s->p.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST);
	int news = kind == EVENT_ICMP || flags;
	int fin_passes = since && point == POINT_TX && kind == EVENT_PACKET && flags == TCP_FIN; /* where it came in, it was told */
	if (kind == EVENT_PACKET && flags & TCP_SYN)
		begin_flow(s); /* which its first data may come with (TCP Fast Open) */
	int first_data = (!news || fin_passes || (kind == EVENT_PACKET && s->payload)) && count_flow(s, since);
	if (!news && (!first_data || s->p.later))
		return 0;
	if (flags & (TCP_FIN | TCP_RST))
		end_flow(s);
	if (fin_passes && !first_data) /* the last data may come with the FIN, and be the first */
		return 0;
	if (locate(s)) {
		if (point == POINT_TX && kind == EVENT_PACKET && !s->outer.proto)
			ask_socket(s);
		emit(s, kind);
	}
	return 0;
}

int on_receive(struct bpf_raw_tracepoint_args *ctx) /* net:netif_receive_skb */
{
	return seen(ctx->args[0], POINT_RX);
}

int on_queue(struct bpf_raw_tracepoint_args *ctx) /* net:net_dev_queue */
{
	return seen(ctx->args[0], POINT_TX);
}

int on_free(struct bpf_raw_tracepoint_args *ctx) /* skb:kfree_skb(skb, location, reason) */
{
	struct sighting *s;

	if (is_harmless(reason_of(ctx)))
		return 0;
	int kind = interesting(&s, ctx->args[0], POINT_DROP);
	if (!kind)
		return 0;
	s->receiver = receiving_socket(ctx);
	if (!locate(s) || !may_emit(s->now))
		return 0;
	struct drop_event *e = ring.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count(ACCOUNT_RING_FULL);
		return 0;
	}
	fill(&e->p, s, kind == EVENT_ICMP ? EVENT_ICMP_DROP : EVENT_DROP);
	fill_end(&e->end, ctx);
	ring.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

int on_retransmit(struct bpf_raw_tracepoint_args *ctx) /* tcp:tcp_retransmit_skb(sk, skb) */
{
	struct tuple t;
	__u64 sk = ctx->args[0];
	__u8 state = socket_tuple(&t, sk);
	__u32 netns = socket_netns(sk);

	if (!matches(&t) || is_left_out(&t) || !is_own(netns))
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (!may_emit(now))
		return 0;
	struct packet_event *e = ring.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count(ACCOUNT_RING_FULL);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->t_ns = now;
	e->t = t;
	e->netns = netns;
	e->kind = EVENT_RETRANSMIT;
	e->state = state;
	e->len = segments_of(ctx->args[1]);
	ring.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}
